"""File systems that a node's own programs serve (FUSE), such as its experiment's shares: mounted for it, because it may mount nothing.

    smbnetfs ─► fusermount.py, in the node ─► a socket in its network ─► host program ─fork─► here: mounts, and hands out the descriptor

The node's root says when, and may be hostile; which folders, and how, was said by the lender. So nothing can be put in front of what
others rely on in a node, its /proc for example: links are not followed, and the folder is the node's own, on its own disk.

What is mounted belongs to the segment's user namespace. The kernel lets nobody outside of it look inside, so nobody but the
segment's own ever waits for a program of a node. Those do, even when they are killed: a thread that waits for an answer of another
thread of its own process holds up the end of both. So with a node its connections are aborted (fusectl); they are known by the mounts'
owner, the segment, and group, the node. fusectl shows all of the kernel's, and members on one host give the same ids to their machines,
so the owner is an id that follows from the segment's folder, and not its root's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import stat
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from federation_member.middleware.containers.launch import MS_NODEV, MS_NOSUID, check, libc, mount
from federation_member.middleware.containers.nodes import birth, groups, kernel
from federation_member.middleware.containers.nodes.fusermount import DONE, DOOR, MOST_SAID, MOUNT, UNMOUNT
from federation_member.middleware.containers.nodes.root import MS_NOEXEC

PROGRAM = Path(__file__).with_name("fusermount.py")  # of nodes
FILE_SYSTEMS = Path("/proc/filesystems")  # that the kernel has now, and not those that it could load
CONNECTIONS = "connections"  # of all the host, in the segment's work folder
ANY_FOLDER = "/proc"
NUMBER = os.makedev(10, 229)  # Linux allocated devices
BACKLOG = 4
PATIENCE = 10  # seconds for all of a request
ASKED_LIMIT = 512  # octets
CREDENTIALS = struct.Struct("3i")  # struct ucred
OPTIONS = "rootmode=40755,user_id={},group_id={},allow_other,default_permissions"
IDS = 1 << 16  # of a segment
SYS_OPENAT2 = 437  # the same number on every architecture
AT_FDCWD = -100
RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS = 1, 4
UMOUNT_NOFOLLOW = 8


def are_possible(first_id: int) -> bool:
    """Whether nodes can have any: only the host's root can abort them, and only ids of their own tell whose they are."""
    return first_id != 0 and {"fuse", "fusectl"} <= set(FILE_SYSTEMS.read_text().split())


def owner(folder: str) -> int:
    """Whose a segment's mounts are, as the segment counts ids."""
    return 1 + zlib.crc32(folder.encode()) % (IDS - 1)


def prepare(plan: dict[str, Any]) -> None:
    """Put a device for the segment's root beside that for tap interfaces, and show us all connections."""
    if not are_possible(plan["first_id"]):
        return
    path = f"{plan['work']}/devices/fuse"
    os.mknod(path, 0o600 | stat.S_IFCHR, NUMBER)
    os.chown(path, plan["first_id"], plan["first_id"])
    os.mkdir(f"{plan['work']}/{CONNECTIONS}")
    _show_connections(f"{plan['work']}/{CONNECTIONS}")


def _show_connections(place: str) -> None:
    mount("fusectl", place, "fusectl", MS_NOSUID | MS_NODEV | MS_NOEXEC)


def abort(place: str, user: int, group: int | None = None) -> None:
    """Abort all connections of a segment or of one of its nodes; `place` shows them."""
    for name in os.listdir(place):
        with suppress(FileNotFoundError):  # it has just ended
            owner = os.stat(f"{place}/{name}")
            if owner.st_uid == user and group in (None, owner.st_gid):
                with open(f"{place}/{name}/abort", "w") as file:
                    file.write("1")


def abort_all(user: int) -> None:
    """Abort all of a segment whose program has ended or is to end; for a process of its own, which sees nothing else then."""
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.make_private()
    _show_connections(ANY_FOLDER)
    abort(ANY_FOLDER, user)


def open_door() -> socket.socket:
    """Where a node asks; to be called in its network, before anything else runs there."""
    door = socket.socket(socket.AF_UNIX)
    door.bind(DOOR)
    door.listen(BACKLOG)
    return door


def answer(
    plan: dict[str, Any], node: dict[str, Any], folders: list[str], user: int, handle: int, caller: socket.socket
) -> None:
    """Begin; another process of ours does it. `user` and `handle` are the user namespace and the node's pidfd."""
    if os.fork():
        return
    try:
        groups.join(folders)
        if os.fork():  # so that as many ask at once as the node may have processes, and no more
            return
        signal.alarm(PATIENCE)
        caller.settimeout(PATIENCE)
        descriptors = _do(plan, node, user, handle, caller)
        socket.send_fds(caller, [DONE], descriptors)
    except (OSError, ValueError) as error:
        with suppress(OSError):
            caller.sendall(str(error).encode()[:MOST_SAID])
    finally:
        os._exit(0)


def _do(plan: dict[str, Any], node: dict[str, Any], user: int, handle: int, caller: socket.socket) -> list[int]:
    asker = CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[1]
    what, _, path = caller.recv(ASKED_LIMIT).decode().partition(" ")
    if asker != plan["first_id"] or what not in (MOUNT, UNMOUNT) or path not in node["mounts"]:
        raise PermissionError(f"root may mount at {', '.join(node['mounts'])}, and nobody anything else")
    birth.let_die_first()
    kernel.setns(user, kernel.CLONE_NEWUSER)
    birth.be_root()
    # The kernel wants it opened in the namespace that mounts.
    device = os.open(f"{plan['work']}/devices/fuse", os.O_RDWR)
    kernel.setns(handle, kernel.CLONE_NEWNS)
    parent, name = os.path.split(path)
    os.fchdir(_open_strictly(parent))
    _unmount(name)
    if what == UNMOUNT:
        return []
    os.fchdir(_open_strictly(name))
    mount(
        plan["name"],
        ".",
        "fuse",
        MS_NOSUID | MS_NODEV,
        f"fd={device},{OPTIONS.format(owner(plan['folder']), node['number'])}",
    )
    return [device]


def _unmount(name: str) -> None:
    """Whatever is mounted there, even if somebody stands in it."""
    while libc.umount2(name.encode(), kernel.MNT_DETACH | UMOUNT_NOFOLLOW) == 0:
        pass
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):  # it is no mount, or not there
        check(-1, f"unmount {name}")


def _open_strictly(path: str) -> int:
    """A folder on the node's own disk, to which no link leads."""
    how = struct.pack("QQQ", os.O_PATH | os.O_DIRECTORY, 0, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS)
    return check(libc.syscall(SYS_OPENAT2, AT_FDCWD, path.encode(), how, len(how)), f"open {path}")
