"""A place of its own for one command: new namespaces, whose interface this process serves from outside.

    this process, with its connections ══ a socket pair ══ fedkit.desktop.room in new user, network and mount namespaces ──► COMMAND

The interface is made inside, where whoever started this is root; its descriptor comes out over the socket, and the connection to the
experiment is made out here. Nobody needs root for it, and the machine itself is not changed.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fedkit.desktop.errors import NoNamespace
from fedkit.desktop.room import GO, MADE
from fedkit.desktop.seat import Seat

SAID_LIMIT = 1024  # octets
PATIENCE = 60.0  # seconds, until the namespaces are made


@dataclass
class Room:
    """Where the command will run: `go` starts it."""

    descriptor: int
    process: asyncio.subprocess.Process
    _socket: socket.socket

    def go(self) -> None:
        """Start the command."""
        self._socket.sendall(GO)
        self._socket.close()


@asynccontextmanager
async def room(seat: Seat, interface: str, hosts: str, command: Sequence[str]) -> AsyncIterator[Room]:
    """Make it, and be rid of it in the end; `hosts` is the text of its hosts file. Raises `NoNamespace`."""
    ours, theirs = socket.socketpair()
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    words = ("unshare", *user, "--net", "--mount", "--propagation", "private", "--")
    program = (sys.executable, "-m", "fedkit.desktop.room", str(theirs.fileno()))
    asked = {
        "interface": interface,
        "address": str(seat.address),
        "routes": [(str(network), str(via)) for network, via in seat.routes],
        "hosts": hosts,
        "command": list(command),
    }
    with ours:
        try:
            process = await asyncio.create_subprocess_exec(*words, *program, pass_fds=[theirs.fileno()])
        except OSError as error:
            raise NoNamespace(f"unshare cannot be run: {error.strerror}. Install util-linux.") from error
        finally:
            theirs.close()
        try:
            descriptor = await asyncio.to_thread(_enter, ours, json.dumps(asked))
            try:
                yield Room(descriptor, process, ours)
            finally:
                os.close(descriptor)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def _enter(ours: socket.socket, asked: str) -> int:
    """Say what is asked for; returns the interface's descriptor."""
    ours.settimeout(PATIENCE)
    try:
        ours.sendall(asked.encode() + b"\n")
        said, descriptors, _flags, _address = socket.recv_fds(ours, SAID_LIMIT, 1)
    except OSError as error:
        raise NoNamespace(f"The namespaces are not made: {error}.") from error
    if said != MADE or not descriptors:
        why = said[1:].decode(errors="replace")
        raise NoNamespace(why or "unshare failed; this machine may not let you have user namespaces.")
    return descriptors[0]
