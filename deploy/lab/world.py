"""The lab's private view of the file system, made by pid 1 before anything else.

Everything that the lab writes lies on a tmpfs at `/run` of its own mount namespace, and its `/etc` is an overlay, so the
machine's files stay untouched and the kernel removes all of it with the last process of the lab:

    /run/fedlab/src, venv    this project and its Python environment, bound here because services that run under users
                             of their own cannot look into, say, /root
    /run/fedlab/SITE/KIND    configuration and data of each service        /run/fedlab/log    their output
    /run/netns               the network namespaces                        /etc/resolv.conf   the lab's DNS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deploy.lab.children import Children
from deploy.lab.dns import RESOLV_CONF
from deploy.lab.errors import LabFailed
from deploy.lab.places import ENVIRONMENT, LOGS, NOTIFY, RUN, SOURCES, TEMPORARY
from deploy.lab.services import USERS

ETC = Path("/etc")
PROJECT = Path(__file__).resolve().parent.parent.parent


async def make(children: Children, groups: list[Path], *, user_namespace: bool) -> None:
    """Mount and fill the lab's own `/run` and `/etc`, and show it `groups` as the roots of the control groups."""
    prefix = Path(sys.prefix)
    for path in (prefix, PROJECT):
        if path.is_relative_to("/run"):
            raise LabFailed(f"The lab hides /run, and {path} lies there: use a checkout in another place.")
    await _mount(children, "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    await _mount(children, "-t", "tmpfs", "-o", "mode=1777", "tmpfs", "/dev/shm")  # noqa: S108 - made private here
    upper, work = RUN / "etc/upper", RUN / "etc/work"
    for directory in (SOURCES, ENVIRONMENT, LOGS, NOTIFY, TEMPORARY, Path("/run/netns"), upper, work):
        directory.mkdir(parents=True)
    TEMPORARY.chmod(0o1777)
    await _mount(children, "--rbind", str(PROJECT), str(SOURCES))
    await _mount(children, "--rbind", str(prefix), str(ENVIRONMENT))
    options = f"lowerdir={ETC},upperdir={upper},workdir={work}" + (",userxattr" if user_namespace else "")
    await _mount(children, "-t", "overlay", "-o", options, "overlay", str(ETC))
    for group in groups:
        await _mount(children, "--bind", str(group), str(group.parent))
    _fill_etc()


def _fill_etc() -> None:
    users, groups = (ETC / "passwd").read_text(), (ETC / "group").read_text()
    for name, number in USERS.items():
        users += f"fedlab-{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n"
        groups += f"fedlab-{name}:x:{number}:\n"
    for file, text in (("passwd", users), ("group", groups), ("resolv.conf", RESOLV_CONF)):
        # A new file each time: the old one may belong to a user who is not mapped here, or be a link into the hidden /run.
        (ETC / file).unlink(missing_ok=True)
        (ETC / file).write_text(text)


def give(path: Path, user: int) -> None:
    """Make a directory and all in it readable and writable by `user` alone."""
    for each in (path, *path.rglob("*")):
        os.chown(each, user, user)
        each.chmod(0o700 if each.is_dir() else 0o600)


async def _mount(children: Children, *arguments: str) -> None:
    await children.run("mount", *arguments)
