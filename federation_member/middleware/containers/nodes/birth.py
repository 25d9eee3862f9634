"""Makes a node's first process, and others that enter it later.

    host program ─fork─► in between: its groups, its root file system, then the segment's user namespace
                            └─fork in new namespaces─► process 1: /proc, /dev, …; waits for its interfaces; the fence; its program

The one in between ends, so the host program, which is process 1 of its own namespace, is everybody's parent.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from federation_member.middleware.containers.nodes import fence, groups, kernel, links, root

INIT = ["/bin/sh", "/etc/fed/node"]
Streams = tuple[int, int, int]  # what becomes descriptors 0, 1 and 2
MOST_SAID = 4000  # octets of what went wrong
SPOILT = 126  # exit status of what did not get as far as its program


@dataclass
class Birth:
    """A node under way; it waits for a word on `go`, and `said` tells what went wrong, if anything did.

    `place` is the mount namespace in which its layer is.
    """

    process: int
    place: int
    go: int
    said: socket.socket


def begin(plan: dict[str, Any], node: dict[str, Any], place: int, lower: str, folders: list[str], user: int) -> Birth:
    """Have a node's first process made, up to where it needs its interfaces; raises `OSError`. Without a place (-1) it makes one."""
    waits, go = os.pipe()
    said, tells = socket.socketpair()
    try:
        between = os.fork()
    except OSError:
        for descriptor in (waits, go, said.detach(), tells.detach()):
            os.close(descriptor)
        raise
    if between == 0:
        os.close(go)
        said.close()
        _or_tell(tells.fileno(), lambda: _between(plan, node, place, lower, folders, user, waits, tells))
    os.close(waits)
    tells.close()
    os.waitpid(between, 0)
    words, places, *_ = socket.recv_fds(said, MOST_SAID, 1)
    number = words.decode(errors="replace")
    if not places or not number.isdigit():
        os.close(go)
        said.close()
        raise OSError(number or "its first process ended")
    os.set_inheritable(places[0], False)  # which what is received is not of itself
    return Birth(int(number), places[0], go, said)


def end(birth: Birth) -> str:
    """Let a node go on, and return what went wrong then; empty if its program runs."""
    with suppress(BrokenPipeError):  # then it has said why
        os.write(birth.go, b"\n")
    os.close(birth.go)
    with birth.said as said:
        return said.recv(MOST_SAID).decode(errors="replace")


def enter(
    node: int, folders: list[str], wall: dict[str, Any], argv: list[str], streams: Streams, *, attended: bool
) -> int:
    """Run a program in a node that runs (`node` is a pidfd); return a process of ours.

    It waits for the program if that is `attended`, and takes it along when it ends itself.
    """
    waiting = os.fork()
    if waiting == 0:
        _or_tell(streams[2], lambda: _enter(node, folders, wall, argv, streams, attended))
    return waiting


def _between(
    plan: dict[str, Any],
    node: dict[str, Any],
    place: int,
    lower: str,
    folders: list[str],
    user: int,
    waits: int,
    tells: socket.socket,
) -> NoReturn:
    groups.join(folders)
    let_die_first()
    if place < 0:
        kernel.unshare(kernel.CLONE_NEWNS)
        root.make(plan, node, lower)
        place = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    else:
        kernel.setns(place, kernel.CLONE_NEWNS)
    kernel.setns(user, kernel.CLONE_NEWUSER)
    be_root()
    kernel.unshare(kernel.OF_A_NODE)
    process = os.fork()
    if process:
        socket.send_fds(tells, [str(process).encode()], [place])
        os._exit(0)
    _or_tell(tells.fileno(), lambda: _first(plan, node, waits))


def _first(plan: dict[str, Any], node: dict[str, Any], waits: int) -> NoReturn:
    root.finish(plan)
    socket.sethostname(node["hostname"])
    os.read(waits, 1)
    links.configure(node)
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    fence.become(INIT, plan["fence"])


def _enter(
    node: int, folders: list[str], wall: dict[str, Any], argv: list[str], streams: Streams, attended: bool
) -> NoReturn:
    groups.join(folders)
    let_die_first()
    kernel.setns(node, kernel.CLONE_NEWUSER | kernel.OF_A_NODE)
    be_root()
    process = os.fork()
    if process:
        status = os.waitpid(process, 0)[1] if attended else 0
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    if attended:
        kernel.die_with_parent()
    kept = [os.dup(descriptor) for descriptor in streams]
    for number, descriptor in enumerate(kept):
        os.dup2(descriptor, number)
    os.chdir("/")
    fence.become(argv, wall)


def be_root() -> None:
    """Of the user namespace that was entered."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def let_die_first() -> None:
    """When memory runs short."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def _or_tell(descriptor: int, do: Callable[[], NoReturn]) -> NoReturn:
    """Do it in a process of its own, which ends whatever comes of it."""
    try:
        do()
    except BaseException as error:
        os.write(descriptor, f"{type(error).__name__}: {error}".encode()[:MOST_SAID])
    finally:
        sys.stderr.flush()
        os._exit(SPOILT)
