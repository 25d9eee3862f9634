"""System calls that the standard library lacks, beside those of the launcher."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

from federation_member.middleware.containers.launch import MS_PRIVATE, MS_REC, PR_SET_PDEATHSIG, check, libc

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
OF_A_NODE = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
MNT_DETACH = 2
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 22, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
CAPABILITY_VERSION_3 = 0x20080522
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.unshare(flags), "unshare")


def setns(descriptor: int, flags: int) -> None:
    """setns(2), of a namespace or of a process."""
    check(libc.setns(descriptor, flags), "setns")


def make_private() -> None:
    """Let no mount of ours be seen elsewhere, and none of others here."""
    check(libc.mount(b"", b"/", b"", MS_REC | MS_PRIVATE, None), "make mounts private")


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent ends."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def unmount(target: str) -> None:
    """umount2(2), at once and for all below."""
    check(libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def enter_root(root: str) -> None:
    """Make `root`, which is a mount, the root of this mount namespace, and let go of the old one."""
    os.chdir(root)
    number = SYS_PIVOT_ROOT[os.uname().machine]
    check(libc.syscall(number, b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def drop_capabilities(kept: int) -> None:
    """Keep of root's capabilities only those in the set `kept`, whatever is executed."""
    last = int(_read("/proc/sys/kernel/cap_last_cap"))
    for capability in range(last + 1):
        if not kept >> capability & 1:
            check(libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "drop a capability")
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    check(libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)), "capset")


def filter_calls(program: bytes) -> None:
    """Install a filter for system calls (seccomp(2)) that nothing executed from here on gets rid of."""
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    filtered = _Program(len(program) // 8, program)
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filtered), 0, 0), "seccomp")


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()
