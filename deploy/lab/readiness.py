"""How pid 1 learns that a service is ready: it listens, or it says so.

Listening is read from `/proc/PID/net`, which shows the sockets of that process's own network namespace; so nothing has to
enter it, and no probe reaches the service.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp (proc_pid_net(5))
LOOK_AGAIN = 0.02  # seconds; the kernel has no event for this
MESSAGE_LIMIT = 4096


async def listens(pid: int, ports: tuple[int, ...], *, udp: bool = False) -> None:
    """Return once the process's network namespace has a socket on each of `ports`."""
    while not set(ports) <= _ports(pid, udp=udp):  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(LOOK_AGAIN)


def _ports(pid: int, *, udp: bool) -> set[int]:
    found = set()
    for name in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        with suppress(OSError):  # the process has just ended, or there is no IPv6
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if udp or state == LISTENING:
                    found.add(int(local.rpartition(":")[2], 16))
    return found


class Notification:
    """The socket on which one service says READY=1 (sd_notify(3)); open it before the service starts."""

    def __init__(self, path: Path, user: int) -> None:
        path.unlink(missing_ok=True)
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        os.chown(path, user, user)

    async def ready(self) -> None:
        """Return once the service has said READY=1."""
        loop = asyncio.get_running_loop()
        while b"READY=1" not in (await loop.sock_recv(self._socket, MESSAGE_LIMIT)).splitlines():
            pass

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        self._path.unlink(missing_ok=True)
