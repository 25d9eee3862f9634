"""The filter for system calls as a program for the kernel, made by libseccomp from the same rules that runc is given (../oci.py)."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import Any

from federation_member.middleware.containers import oci
from federation_member.middleware.contract import Unavailable

LIBRARY = "libseccomp.so.2"
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(0)
COMPARISONS = {oci.EQUAL: 4, oci.MASKED_EQUAL: 7}
UNKNOWN = -1  # a system call that this architecture does not have


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("index", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


@cache
def program() -> bytes:
    """The filter; raises `Unavailable` without libseccomp, which runc needs as well."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise Unavailable("libseccomp is not installed; install the package libseccomp2.") from error
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ALLOW)))
    try:
        for rule in oci.seccomp(one_id=False)["syscalls"]:
            _add(library, context, rule)
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _add(library: ctypes.CDLL, context: ctypes.c_void_p, rule: dict[str, Any]) -> None:
    arguments = [
        _Comparison(one["index"], COMPARISONS[one["op"]], one["value"], one.get("valueTwo", 0))
        for one in rule.get("args", [])
    ]
    array = (_Comparison * len(arguments))(*arguments)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == UNKNOWN:
            continue
        action = ctypes.c_uint32(REFUSE | rule["errnoRet"])
        if library.seccomp_rule_add_array(context, action, number, len(arguments), array) < 0:
            raise Unavailable(f"libseccomp takes no rule for {name}.")


def _exported(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    descriptor = os.memfd_create("filter")
    try:
        if library.seccomp_export_bpf(context, descriptor) < 0:
            raise Unavailable("libseccomp cannot write its filter.")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)
