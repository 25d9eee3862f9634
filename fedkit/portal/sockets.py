"""Sockets of the tunnel: one that is at an address of this machine uses that address's interface, and no other.

The address alone does not do that: the kernel sends from any address of its own by whatever interface its routes say. So a transit
network between two portals carries all of their tunnel or nothing of it, whatever other ways lead from one to the other.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess

ANY = "0.0.0.0"  # noqa: S104 - whoever comes in shows a key
BACKLOG = 16


def bound(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    """A socket at `host`, an address of this machine or `ANY`; raises `OSError`."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        if host != ANY and (interface := _interface_of(host)) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def listening(host: str, port: int) -> socket.socket:
    """The same, where connections are taken; raises `OSError`."""
    sock = bound(socket.SOCK_STREAM, host, port)
    sock.listen(BACKLOG)
    return sock


async def connected(local: str, host: str, port: int) -> socket.socket:
    """A connection from `local` to a host; raises `OSError`."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    sock = bound(socket.SOCK_STREAM, local, 0)
    try:
        await loop.sock_connect(sock, found[0][4])
    except BaseException:
        sock.close()
        raise
    return sock


def _interface_of(address: str) -> str | None:
    """Which interface has an address; None if there is none, as `bind` will say."""
    command = ["ip", "-j", "address", "show", "to", address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next((link["ifname"] for link in json.loads(done.stdout or "[]") if link), None)
