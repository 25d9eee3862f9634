"""`kill -9` of the server: every machine has its ports back, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from reverse_tunnel.server import load_host_key
from tests.interop.tunnel.clients import Client, echo_service, exchange, openssh, running, write_known_hosts
from tests.support.tunnel_site import BIND, MachineKey, free_range

PIPE = asyncio.subprocess.PIPE


@asynccontextmanager
async def server(folder: Path, listen: str, ports: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The server as a process; it is killed without notice at the end."""
    command = [sys.executable, "-m", "tests.support.tunnel_process", str(folder), listen, ports]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        await process.wait()


async def grant(process: asyncio.subprocess.Process, machine: MachineKey) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([machine.lease_id, machine.public]).encode() + b"\n")
    async with asyncio.timeout(20):
        assert json.loads(await process.stdout.readline())["lease_id"] == machine.lease_id


async def allocated(client: Client) -> list[int]:
    """The two ports that a client got."""
    async with asyncio.timeout(20), client.news:
        await client.news.wait_for(lambda: client.said.count("Allocated port") == 2)
    return [int(line.split()[2]) for line in client.said.splitlines() if line.startswith("Allocated port")]


async def test_assignments_survive_kill_9(tmp_path: Path) -> None:
    listen, ports = f"{BIND}:{free_range(1).partition('-')[0]}", free_range(20)
    port = int(listen.partition(":")[2])
    machines = [MachineKey.make(tmp_path) for _ in range(4)]
    known_hosts = write_known_hosts(tmp_path, port, load_host_key(tmp_path / "ssh_host_key"))

    async def dial_all(stack: AsyncExitStack, service: int, order: list[MachineKey]) -> dict[str, list[int]]:
        got = {}
        wishes = ["-N", "-R", f"ssh:0:127.0.0.1:{service}", "-R", f"0:127.0.0.1:{service}"]
        for machine in order:
            client = await stack.enter_async_context(running(openssh(machine, port, known_hosts, *wishes)))
            got[machine.lease_id] = await allocated(client)
        return got

    async with echo_service() as service:
        async with AsyncExitStack() as stack, server(tmp_path, listen, ports) as process:
            for machine in machines:
                await grant(process, machine)
            before = await dial_all(stack, service, machines)
            await grant(process, MachineKey.make(tmp_path))  # its port comes after those of the others
        assert len({got for pair in before.values() for got in pair}) == 8
        async with server(tmp_path, listen, ports), AsyncExitStack() as stack:
            order = random.Random(7).sample(machines, len(machines))
            assert await dial_all(stack, service, order) == before
            for first, second in before.values():
                assert await exchange(first, b"1") + await exchange(second, b"2") == b"12"
