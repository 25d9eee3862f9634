"""What a node sees: its image under a writable layer of its own, its own /proc and /dev, and nothing else of the host.

Made in two parts. The host's root mounts what only it may, the layer (a tmpfs of limited size) and the overlay, in a mount namespace
that the host program holds: a node that is started again finds its disk there. The node's own root, in a copy of it, does the rest.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from federation_member.middleware.containers.launch import MS_BIND, MS_NODEV, MS_NOSUID, MS_REC, mount
from federation_member.middleware.containers.nodes import kernel

MS_RDONLY, MS_NOEXEC, MS_REMOUNT = 1, 8, 32
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}

Seed = dict[str, tuple[str, int]]  # path to content in base64, and mode


def write(folder: str, seed: Seed, first: int) -> None:
    """Write files for the owner `first` into a folder that is ours alone, so that no link can lead elsewhere."""
    for name, (content, mode) in seed.items():
        *directories, _ = name.split("/")
        for depth in range(1, len(directories) + 1):
            directory = "/".join([folder, *directories[:depth]])
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o755)
                os.chown(directory, first, first)
        descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64decode(content))
        os.chmod(f"{folder}/{name}", mode)
        os.chown(f"{folder}/{name}", first, first)


def make(plan: dict[str, Any], node: dict[str, Any], lower: str) -> None:
    """Mount a node's layer, put into it what is the node's own, and mount its root; in a mount namespace that only the node will have."""
    layer, root, first = f"{plan['work']}/layer", f"{plan['work']}/root", plan["first_id"]
    mount(plan["name"], layer, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=0755,size={node['disk_bytes']}")
    for name in ("upper", "work"):
        os.mkdir(f"{layer}/{name}", 0o755)
    os.chown(f"{layer}/upper", first, first)
    write(f"{layer}/upper", node["seed"], first)
    options = f"lowerdir={lower},upperdir={layer}/upper,workdir={layer}/work"
    if not first:
        options += ",userxattr"  # trusted.* needs the initial user namespace
    mount(plan["name"], root, "overlay", MS_NODEV, options)
    for source, target in node["binds"].items():
        os.makedirs(f"{root}/{target}", exist_ok=True)
        mount(f"{plan['work']}/{source}", f"{root}/{target}", "", MS_BIND)


def finish(plan: dict[str, Any]) -> None:
    """In the node's own namespaces, as its root: mount the rest, hide what is not its business, and enter."""
    root = f"{plan['work']}/root"
    mount(root, root, "", MS_BIND | MS_REC)  # what came with the host's root is locked: it can be no new root
    mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755,size=64k")
    for name in DEVICES:
        _bind_device(f"/dev/{name}", f"{root}/dev/{name}")
    os.mkdir(f"{root}/dev/net")
    _bind_device(f"{plan['work']}/devices/tun", f"{root}/dev/net/tun")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{root}/dev/{name}")
    mount("devpts", f"{root}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("shm", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODEV, "mode=1777,size=64m")  # noqa: S108  its own
    mount("mqueue", f"{root}/dev/mqueue", "mqueue", MS_NOSUID | MS_NOEXEC | MS_NODEV)
    for name, target in (LINKS | {"ptmx": "pts/ptmx"}).items():
        os.symlink(target, f"{root}/dev/{name}")
    for path in plan["masked"]:
        _mask(f"{root}{path}")
    for path in plan["read_only"]:
        _make_read_only(f"{root}{path}")
    kernel.enter_root(root)


def _bind_device(source: str, target: str) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    mount(source, target, "", MS_BIND)


def _mask(path: str) -> None:
    if os.path.isdir(path):
        mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k")
    elif os.path.exists(path):
        mount("/dev/null", path, "", MS_BIND)


def _make_read_only(path: str) -> None:
    if os.path.exists(path):
        mount(path, path, "", MS_BIND | MS_REC)
        mount(path, path, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
