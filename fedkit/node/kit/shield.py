"""Lets a program run that asks for a right which nobody here has, and would end without it, though it makes no use of it.

FRR's daemons begin by giving up all rights but a few, CAP_SYS_ADMIN among those they keep (lib/privs.c); OSPF needs it for nothing. Nodes
of lenders that run containers do not have it. There a filter for system calls (seccomp(2)) answers "done" to that request, and to the
changes of user and groups that come before it, and does nothing, so the daemon goes on as what it is: root of its node, within the
node's bounds. Whoever else is root there, and may not look at other users' processes (CAP_SYS_PTRACE), still knows it by its mark
(system.py).
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

CAP_SYS_ADMIN = 21  # linux/capability.h
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2  # linux/prctl.h, linux/seccomp.h
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
NUMBER, ARCHITECTURE = 0, 4  # where struct seccomp_data has them
ALLOWED, DONE = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with no error
CALLS = {  # by machine: AUDIT_ARCH_…, and the numbers of setreuid, setregid, setgroups and capset
    "x86_64": (0xC000003E, 113, 114, 116, 126),
    "aarch64": (0xC00000B7, 145, 143, 159, 91),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_needed() -> bool:
    """Whether this process lacks the right."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return not int(status["CapEff"], 16) >> CAP_SYS_ADMIN & 1


def is_possible() -> bool:
    """Whether the numbers of this machine's system calls are known."""
    return os.uname().machine in CALLS


def put_on() -> None:
    """Filter what this process asks from now on; raises `OSError`."""
    program = instructions(os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    found = _Program(len(program) // 8, program)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(found), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "no filter for system calls can be set")


def instructions(machine: str) -> bytes:
    """The filter for a kind of machine, as the kernel takes it (struct sock_filter)."""
    architecture, *calls = CALLS[machine]
    lines = [(LOAD, 0, 0, ARCHITECTURE), (JUMP_IF_EQUAL, 0, len(calls) + 1, architecture), (LOAD, 0, 0, NUMBER)]
    lines += [(JUMP_IF_EQUAL, len(calls) - place, 0, call) for place, call in enumerate(calls)]
    lines += [(RETURN, 0, 0, ALLOWED), (RETURN, 0, 0, DONE)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
