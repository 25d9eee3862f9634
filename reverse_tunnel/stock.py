"""Joins a public connection to a machine with nothing but asyncssh's public interface.

Used with any version of asyncssh that `connection.py` was not made for: correct, slower, and without back-pressure towards
the machine's ssh socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import asyncssh

from reverse_tunnel.traffic import Traffic


class _Side:
    """What both sides of a joint do for one another."""

    transport: asyncio.Transport | asyncssh.SSHTCPChannel[bytes] | None = None
    other: _Side | None = None
    ended = False

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        if self.other is None or self.other.transport is None:
            return False
        self.other.transport.write_eof()
        return not self.other.ended

    def connection_lost(self, _exc: Exception | None) -> None:
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            other.transport.close()


class _MachineSide(_Side, asyncssh.SSHTCPSession[bytes]):
    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self.transport = chan
        chan.pause_reading()  # until the public side is there

    def data_received(self, data: bytes, _datatype: asyncssh.DataType = None) -> None:
        self._traffic.to_public += len(data)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)


class _PublicSide(_Side, asyncio.Protocol):
    def __init__(self, traffic: Traffic, machine: _MachineSide, closed: Callable[[], None]) -> None:
        self._traffic = traffic
        self._closed = closed
        self.other = machine
        machine.other = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._traffic.to_machine += len(data)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._closed()


async def splice(
    conn: asyncssh.SSHServerConnection,
    sock: socket.socket,
    told: tuple[str, int],
    origin: tuple[str, int],
    traffic: Traffic,
    closed: Callable[[], None],
) -> None:
    """Offer a public connection to the machine; `closed` is called once it has ended."""
    try:
        channel, machine = await conn.create_connection(lambda: _MachineSide(traffic), *told, *origin)
    except (asyncssh.Error, OSError):
        sock.close()
        closed()
        return
    assert isinstance(machine, _MachineSide)
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: _PublicSide(traffic, machine, closed), sock)
    channel.resume_reading()
