"""Runs commands in machines of ours, by ssh, with a key that the lender made for it.

A machine is known by the host keys that stood in its book before anybody connected. It is not ours to trust: what it prints is bounded
as it comes, and whatever it does takes no longer than is said.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import asyncssh

from federation_member.middleware.console import printable
from fedkit.errors import Exit, FedError

USER = "root"  # of every machine that was made here
CONNECT_LIMIT = 10.0  # seconds, to connect and to log in
CHUNK = 16 * 1024  # characters
KEPT = 64 * 1024  # characters of what a command prints, its end
KILLED, SIGNALLED = 128, 255  # what shells add to the number of a signal, and what ssh says where there is none


class NotReached(FedError):
    """The machine does not answer, is not the one that was made, or lets us not in."""

    code = "segment.not_reached"
    http = 504
    exit = Exit.NOT_REACHABLE


@dataclass(frozen=True)
class Place:
    """Where a machine's ssh server is, and who may enter it."""

    host: str
    port: int
    host_keys: Sequence[str]
    key: str = field(repr=False)  # private, OpenSSH's format


@dataclass(frozen=True)
class Said:
    """The end of what a command printed, and its exit status."""

    text: str
    status: int


class Hands(Protocol):
    """Whoever can run a command in a machine."""

    async def run(self, place: Place, command: str, told: str = "") -> Said:
        """Run it in a shell as root, until it ends or this is cancelled; it reads what it is told. Raises `NotReached`."""


class Ssh:
    """By its ssh server."""

    async def run(self, place: Place, command: str, told: str = "") -> Said:
        """See `Hands`."""
        try:
            known = [asyncssh.import_public_key(line) for line in place.host_keys]
            async with asyncssh.connect(
                place.host,
                place.port,
                username=USER,
                client_keys=[asyncssh.import_private_key(place.key)],
                known_hosts=(known, [], []),
                agent_path=None,
                config=[],
                connect_timeout=CONNECT_LIMIT,
                login_timeout=CONNECT_LIMIT,
            ) as connection:
                return await _run(connection, command, told)
        except (OSError, ValueError, asyncssh.Error) as error:
            reason = printable(str(error)) or type(error).__name__
            raise NotReached(f"Its ssh server at {place.host}:{place.port} is of no use: {reason}") from error


async def _run(connection: asyncssh.SSHClientConnection, command: str, told: str) -> Said:
    """Run it and keep the end of what it prints."""
    async with connection.create_process(
        command, input=told or None, stdin=asyncssh.DEVNULL, stderr=asyncssh.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        text = ""
        while chunk := await process.stdout.read(CHUNK):
            text = (text + chunk)[-KEPT:]
        await process.wait_closed()
        return Said(printable(text), _status(process))


def _status(process: asyncssh.SSHClientProcess[str]) -> int:
    """As shells tell it. A machine that went away before it said how the command ended has ended it by a signal."""
    if process.exit_status is not None and process.exit_status >= 0:
        return process.exit_status
    name = process.exit_signal[0] if process.exit_signal else ""
    number = getattr(signal, f"SIG{name}", None)
    return SIGNALLED if number is None else KILLED + number
