"""Machines that speak through asyncssh, so that a test can be as polite or as hostile as it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncssh

from fedkit.protocol.tunnel import Granted
from tests.support.tunnel_site import BIND, MachineKey, Site


@asynccontextmanager
async def connect(site: Site, machine: MachineKey, **more: Any) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Log in as a machine with stock asyncssh."""
    options = {
        "username": "tunnel",
        "client_keys": [str(machine.path)],
        "known_hosts": None,
        "agent_path": None,
        "config": None,
    }
    async with asyncssh.connect(BIND, site.port, **(options | more)) as conn:
        yield conn


def is_up(*names: str) -> Callable[[Granted], bool]:
    """Accept a report in which exactly these tunnels are up."""
    return lambda told: {tunnel.name for tunnel in told.tunnels if tunnel.up} == set(names)


async def exchange(port: int, data: bytes, host: str = BIND) -> bytes:
    """Send `data`, close that half, and return all that comes back."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(data)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer


@asynccontextmanager
async def echo_service() -> AsyncIterator[int]:
    """Echoes, and closes its half after the client has closed its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, BIND, 0) as server:
        yield server.sockets[0].getsockname()[1]
