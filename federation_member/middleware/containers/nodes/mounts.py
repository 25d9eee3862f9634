"""File systems that a node's own programs serve (FUSE), such as its experiment's shares: mounted for it, because it may mount nothing.

    smbnetfs ─► fusermount.py, in the node ─► a socket in its network ─► host program ─fork─► here: mounts, and hands out the descriptor

The node's root says when, and may be hostile; which folders, and how, was said by the lender. So nothing can be put in front of what
others rely on in a node, its /proc for example: links are not followed, and the folder is the node's own, on its own disk.

What is mounted belongs to the segment's user namespace. The kernel lets nobody outside of it look inside, so nobody but the
segment's own ever waits for a program of a node.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from federation_member.middleware.containers.launch import MS_BIND, MS_NODEV, MS_NOSUID, check, libc, mount
from federation_member.middleware.containers.nodes import birth, groups, kernel
from federation_member.middleware.containers.nodes.fusermount import DONE, DOOR, MOST_SAID, MOUNT, UNMOUNT

PROGRAM = Path(__file__).with_name("fusermount.py")  # of nodes
DEVICE = "/dev/fuse"
NUMBER = os.makedev(10, 229)  # Linux allocated devices
BACKLOG = 4
PATIENCE = 10  # seconds for all of a request
ASKED_LIMIT = 512  # octets
CREDENTIALS = struct.Struct("3i")  # struct ucred
OPTIONS = "rootmode=40755,user_id=0,group_id=0,allow_other,default_permissions"
SYS_OPENAT2 = 437  # the same number on every architecture
AT_FDCWD = -100
RESOLVE_NO_XDEV, RESOLVE_NO_SYMLINKS = 1, 4
UMOUNT_NOFOLLOW = 8


def make_device(plan: dict[str, Any]) -> None:
    """Put the device beside that for tap interfaces: one for the segment's root, or, if we are no root, the host's."""
    path = f"{plan['work']}/devices/fuse"
    if plan["first_id"]:
        os.mknod(path, 0o600 | stat.S_IFCHR, NUMBER)
        os.chown(path, plan["first_id"], plan["first_id"])
    elif os.path.exists(DEVICE):
        open(path, "x").close()
        mount(DEVICE, path, "", MS_BIND)


def open_door() -> socket.socket:
    """Where a node asks; to be called in its network, before anything else runs there."""
    door = socket.socket(socket.AF_UNIX)
    door.bind(DOOR)
    door.listen(BACKLOG)
    return door


def answer(
    plan: dict[str, Any], folders: list[str], user: int, node: int, allowed: list[str], caller: socket.socket
) -> None:
    """Begin; another process of ours does it. `user` and `node` are the user namespace and the node's pidfd."""
    if os.fork():
        return
    try:
        groups.join(folders)
        if os.fork():  # so that as many ask at once as the node may have processes, and no more
            return
        signal.alarm(PATIENCE)
        caller.settimeout(PATIENCE)
        descriptors = _do(plan, user, node, allowed, caller)
        socket.send_fds(caller, [DONE], descriptors)
    except (OSError, ValueError) as error:
        with suppress(OSError):
            caller.sendall(str(error).encode()[:MOST_SAID])
    finally:
        os._exit(0)


def _do(plan: dict[str, Any], user: int, node: int, allowed: list[str], caller: socket.socket) -> list[int]:
    asker = CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))[1]
    what, _, path = caller.recv(ASKED_LIMIT).decode().partition(" ")
    if asker != plan["first_id"] or what not in (MOUNT, UNMOUNT) or path not in allowed:
        raise PermissionError(f"root may mount at {', '.join(allowed)}, and nobody anything else")
    birth.let_die_first()
    kernel.setns(user, kernel.CLONE_NEWUSER)
    birth.be_root()
    # The kernel wants it opened in the namespace that mounts.
    device = os.open(f"{plan['work']}/devices/fuse", os.O_RDWR)
    kernel.setns(node, kernel.CLONE_NEWNS)
    parent, name = os.path.split(path)
    os.fchdir(_open_strictly(parent))
    _unmount(name)
    if what == UNMOUNT:
        return []
    os.fchdir(_open_strictly(name))
    mount(plan["name"], ".", "fuse", MS_NOSUID | MS_NODEV, f"fd={device},{OPTIONS}")
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
