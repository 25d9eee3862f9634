"""What a hostile client, or a lazy one, can make the server hold: seen from outside, as resident memory of its process."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from tests.support.tunnel_site import BIND, MachineKey, free_range

PIPE = asyncio.subprocess.PIPE
MEGABYTE = 1024  # KiB
FLOOD = 256 * 1024 * 1024  # octets offered
SLACK = 10 * MEGABYTE  # of the allocator
PUBLIC = 40  # public clients
FIRST_WINDOWS = PUBLIC * 256
GROWN_WINDOWS = 16 * MEGABYTE  # the budget of one ssh connection


@asynccontextmanager
async def machine_of_a_server(folder: Path) -> AsyncIterator[tuple[asyncssh.SSHClientConnection, int]]:
    """A server as a process of its own, and a machine that is logged in; yields its connection and the process id."""
    listen = f"{BIND}:{free_range(1).partition('-')[0]}"
    command = [sys.executable, "-m", "tests.support.tunnel_process", str(folder), listen, free_range(4)]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        machine = MachineKey.make(folder)
        process.stdin.write(json.dumps([machine.lease_id, machine.public]).encode() + b"\n")
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
            assert b"tunnels" in await process.stdout.readline()
        port = int(listen.rpartition(":")[2])
        async with asyncssh.connect(
            BIND,
            port,
            username="tunnel",
            client_keys=[str(machine.path)],
            known_hosts=None,
            config=None,
            agent_path=None,
        ) as conn:
            yield conn, process.pid
    finally:
        process.kill()
        await process.wait()


def resident(pid: int) -> int:
    """Resident memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def push(port: int) -> int:
    """Offer the flood to a public port until nobody takes more of it for a second; return the octets taken."""
    loop, taken, block = asyncio.get_running_loop(), 0, bytes(1 << 20)
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (BIND, port))
        try:
            while taken < FLOOD:
                async with asyncio.timeout(1):
                    await loop.sock_sendall(sock, block)
                taken += len(block)
        except TimeoutError:
            pass
    return taken


async def test_a_client_with_a_huge_window_that_stops_reading(tmp_path: Path) -> None:
    class Nothing(asyncssh.SSHTCPSession[bytes]):
        pass

    async with machine_of_a_server(tmp_path) as (conn, pid):
        listener = await conn.create_server(lambda _host, _port: Nothing(), "ssh", 0, window=512 * 1024 * 1024)
        _, writer = await asyncio.open_connection(BIND, listener.get_port())
        writer.write(b"opens the channel")
        await asyncio.sleep(0.2)
        before = resident(pid)
        transport: Any = conn._transport
        transport.pause_reading()
        assert await push(listener.get_port()) < FLOOD
        assert resident(pid) - before < SLACK  # stock asyncssh holds whatever is offered
        conn.abort()
        writer.close()


async def test_public_clients_that_never_read(tmp_path: Path) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(bytes(1 << 20))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with machine_of_a_server(tmp_path) as (conn, pid), await asyncio.start_server(serve, BIND, 0) as service:
        listener = await conn.forward_remote_port("ssh", 0, BIND, service.sockets[0].getsockname()[1])
        before = resident(pid)
        with ExitStack() as stack:
            for _ in range(PUBLIC):
                stack.enter_context(socket.create_connection((BIND, listener.get_port())))
            for _ in range(20):
                await asyncio.sleep(0.1)
                assert resident(pid) - before < FIRST_WINDOWS + GROWN_WINDOWS + SLACK
        conn.abort()
        service.close()
