"""A public port that a machine holds open."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address

import asyncssh
import structlog

from reverse_tunnel.traffic import Traffic

log = structlog.get_logger()

BACKLOG = 128
ACCEPTS = 32  # connections taken in one turn of the event loop
PAUSE_SECONDS = 1.0  # after the process ran out of descriptors or memory
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

Splice = Callable[[socket.socket, tuple[str, int], Callable[[], None]], bool]
"""Joins a public connection (socket, its origin, what to call at its end) to the machine; False if it cannot."""


def listen_on(address: str, port: int) -> socket.socket:
    """Open a listening socket; raise OSError."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


class PublicPort(asyncssh.SSHListener):
    """Takes public connections as long as it is open, at most `limit` at a time."""

    def __init__(
        self, sock: socket.socket, splice: Splice, limit: int, traffic: Traffic, gone: Callable[[PublicPort], None]
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._sock: socket.socket | None = sock
        self._splice = splice
        self._limit = limit
        self._traffic = traffic
        self._gone = gone
        self._port = int(sock.getsockname()[1])
        self._open = 0
        self._loop.add_reader(sock, self._accept)

    def get_port(self) -> int:
        """The public port."""
        return self._port

    def close(self) -> None:
        """Take no more connections, and tell whoever opened it; those that are open go on."""
        if self._sock is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None
            self._gone(self)

    async def wait_closed(self) -> None:
        """It is closed at once."""

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            if self._sock is None:
                return
            try:
                sock, origin = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error("public_port_paused", port=self._port, reason=error.strerror)
                self._loop.remove_reader(self._sock)
                self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            self._take(sock, origin[:2])

    def _resume(self) -> None:
        if self._sock is not None:
            self._loop.add_reader(self._sock, self._accept)

    def _take(self, sock: socket.socket, origin: tuple[str, int]) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._open >= self._limit or not self._splice(sock, origin, self._ended):
            self._traffic.refusals["tunnel.too_many_public_connections"] += 1
            sock.close()
            return
        self._open += 1
        self._traffic.public_connections += 1

    def _ended(self) -> None:
        self._open -= 1
