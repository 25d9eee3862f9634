"""Run as a program of its own, once for each machine: builds what the machine stands on, then becomes `runc run`.

It works in a mount namespace and a network namespace that only the machine inherits. So all of it (the writable layer,
the overlay, the interfaces) lives exactly as long as the machine: whatever crashes, nothing has to be unmounted or found
again. The writable layer is a tmpfs of limited size, so that a machine can fill its own disk and nothing else.

The network namespace belongs to the *outer* user namespace: nobody inside, whatever capability they got hold of, can
change an address or open a raw socket. Only a machine that carries frames gets both namespaces together: the launcher makes its
user namespace, too, hands it to runc as a file in the machine's mount namespace, and root in it may administer the network that
its plugs lead to. Where the outer namespace has uids to spare each machine has its own range, and
the base appears shifted into it (`mount_setattr(2)`, MOUNT_ATTR_IDMAP), without copying a file.

It dies with the member that started it. Until it has become runc, it and the programs that it runs hold a lock on the
machine's lock file, so whoever clears up after a crash can wait until nobody is at work any more.

Standard library only and no other import of ours: started with `python -I -S` it is up in 20 ms. The plan comes as JSON
on standard input (secrets never stand in arguments or on disk); what went wrong goes to standard error.

    launch.py PROCESS-ID-OF-THE-MEMBER
"""

from __future__ import annotations

import base64
import ctypes
import errno
import fcntl
import json
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 1 << 18
TUN = os.makedev(10, 200)  # Linux allocated devices
PR_SET_PDEATHSIG = 1
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442  # the same number on every architecture
AT_FDCWD, AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 0x1000, 1, 4
MOUNT_ATTR_IDMAP = 0x00100000
REFUSALS = {  # of a user namespace: user_namespaces(7)
    errno.EPERM: "the kernel allows none in a chroot, and the profile of a container may forbid them",
    errno.ENOSPC: "see sysctl user.max_user_namespaces",
}
Extents = list[tuple[int, int, int]]  # id inside, id outside, how many
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """Turn the C way of failing into an exception that names what was tried."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), target.encode(), kind.encode(), flags, options.encode())
    check(libc.mount(*arguments), f"mount {kind or 'flags'} on {target}")


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends; this is not inherited, each process asks for it."""
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel knew what to do then


@contextmanager
def process_in_new(flags: int, uids: Extents, gids: Extents) -> Iterator[str]:
    """Give the folder in /proc with the namespaces of a process that does nothing, in a user namespace with these ids."""
    ready_read, ready_write = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        refusal = 0 if libc.unshare(CLONE_NEWUSER | flags) == 0 else ctypes.get_errno()
        die_with(parent)  # after that: the kernel forgets it when credentials change
        os.write(ready_write, bytes([refusal]))
        signal.pause()
    try:
        refusal = os.read(ready_read, 1)[0]
        if refusal:
            what = f"a user namespace; {REFUSALS.get(refusal, 'see user_namespaces(7)')}"
            raise OSError(refusal, os.strerror(refusal), what)
        for name, extents in (("uid_map", uids), ("gid_map", gids)):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write("".join(f"{inside} {outside} {count}\n" for inside, outside, count in extents))
        yield f"/proc/{child}/ns"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def mount_shifted(source: str, target: str, first: int, count: int) -> None:
    """Show `source` at `target` with every owner moved up by `first`."""
    shift = [(0, first, count)]
    with process_in_new(0, shift, shift) as namespaces:
        namespace = os.open(f"{namespaces}/user", os.O_RDONLY | os.O_CLOEXEC)
    tree = check(
        libc.syscall(SYS_OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC), f"open_tree {source}"
    )
    attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, namespace)
    shifted = libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, len(attributes))
    check(shifted, f"the file system of {source} does not support id-mapped mounts (ext4, xfs, btrfs and tmpfs do)")
    check(libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH), "move_mount")
    os.close(tree)
    os.close(namespace)


def make_root(plan: dict[str, Any]) -> None:
    """Mount the writable layer and the overlay at `work`/root."""
    work, first = plan["work"], plan["first_id"]
    check(libc.mount(b"", b"/", b"", MS_REC | MS_PRIVATE, None), "make mounts private")
    mount(plan["name"], work, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=0755,size={plan['disk_bytes']}")
    for name in ("upper", "work", "root", "lower"):
        os.mkdir(f"{work}/{name}", 0o755)
    os.chown(f"{work}/upper", first, first)
    write_seed(f"{work}/upper", plan)
    lower = plan["base"]
    if first:
        mount_shifted(lower, lower := f"{work}/lower", first, plan["ids"])
    options = f"lowerdir={lower},upperdir={work}/upper,workdir={work}/work"
    if plan["userxattr"]:
        options += ",userxattr"  # trusted.* needs the initial user namespace
    mount(plan["name"], f"{work}/root", "overlay", MS_NODEV, options)


def write_seed(upper: str, plan: dict[str, Any]) -> None:
    """Write the machine's own files; the layer is new and empty, so no link can lead elsewhere."""
    first = plan["first_id"]
    for name, (content, mode) in plan["seed"].items():
        *directories, _ = name.split("/")
        for depth in range(1, len(directories) + 1):
            directory = "/".join([upper, *directories[:depth]])
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o755)
                os.chown(directory, first, first)
        descriptor = os.open(f"{upper}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64decode(content))
        os.chown(f"{upper}/{name}", first, first)


def new_network(plan: dict[str, Any]) -> int:
    """Enter a new network namespace, and return a descriptor of it.

    For a machine that carries frames it belongs to the machine's own user namespace, which is made with it and left at
    `work`/user for runc.
    """
    if not plan["carries_frames"]:
        check(libc.unshare(CLONE_NEWNET), "unshare")
        return os.open("/proc/self/ns/net", os.O_RDONLY)
    work = plan["work"]
    with process_in_new(CLONE_NEWNET, plan["uids"], plan["gids"]) as namespaces:
        open(f"{work}/user", "x").close()
        mount(f"{namespaces}/user", f"{work}/user", "", MS_BIND)
        inside = os.open(f"{namespaces}/net", os.O_RDONLY)
    check(libc.setns(inside, CLONE_NEWNET), "enter the machine's network")
    return inside


def make_tun(plan: dict[str, Any]) -> None:
    """Put the device for tap interfaces at `work`/devices/tun: one for its root, or, if we are no root, the host's."""
    os.mkdir(folder := f"{plan['work']}/devices")
    if plan["first_id"]:
        mount(plan["name"], folder, "tmpfs", MS_NOSUID, "mode=0755,size=4k")
        os.mknod(f"{folder}/tun", 0o600 | stat.S_IFCHR, TUN)
        os.chown(f"{folder}/tun", plan["first_id"], plan["first_id"])
    else:
        open(f"{folder}/tun", "x").close()
        mount("/dev/net/tun", f"{folder}/tun", "", MS_BIND)


def make_network(plan: dict[str, Any], outside: int, lock: int) -> None:
    """Set the kernel's switches for the new namespace, then its interfaces."""
    for name, value in plan["sysctl"].items():
        with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
            file.write(value)
    run_ip(plan["ip_inside"].replace("@OUTSIDE@", f"/proc/{os.getpid()}/fd/{outside}"), lock)
    check(libc.setns(outside, CLONE_NEWNET), "return to the site's network")
    run_ip(plan["ip_outside"], lock)


def run_ip(batch: str, lock: int) -> None:
    """Let `ip` do a batch of commands, all or none of which are right."""
    done = subprocess.run(
        ["ip", "-batch", "-"], input=batch, text=True, capture_output=True, check=False, pass_fds=(lock,)
    )
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


def main() -> None:
    """Do it all, then become runc."""
    die_with(int(sys.argv[1]))
    os.umask(0o022)  # not the one that the operator happens to have
    plan = json.load(sys.stdin)
    lock = os.open(plan["lock"], os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    check(libc.unshare(CLONE_NEWNS), "unshare")
    make_root(plan)
    if plan["carries_frames"]:
        make_tun(plan)
    inside = new_network(plan)
    make_network(plan, outside, lock)
    check(libc.setns(inside, CLONE_NEWNET), "enter the machine's network")
    os.close(inside)
    os.close(outside)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)  # the machine inherits these; runc itself writes to its log file
    os.execvp(plan["command"][0], plan["command"])  # noqa: S606  becoming runc is the point


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
