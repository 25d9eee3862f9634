"""Ports of this machine behind which a lab's host answers, for programs that run outside the lab, such as a browser."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from deploy.lab.client import Lab

CHUNK = 65536
RELAY = """
import os, socket, sys, threading
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := peer.recv(65536):
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
"""


@asynccontextmanager
async def window(lab: Lab, site: str, host: str, port: int) -> AsyncIterator[str]:
    """Yield `127.0.0.1:PORT`, whose connections begin at `site` and go to `host:port`, each by a process of its own."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = lab.enter(site, ["python3", "-c", RELAY, host, str(port)])
        relay = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert relay.stdin is not None
        assert relay.stdout is not None
        try:
            async with asyncio.TaskGroup() as ways:
                back = ways.create_task(_carry(relay.stdout, writer))
                forth = ways.create_task(_carry(reader, relay.stdin))
                await asyncio.wait((back, forth), return_when=asyncio.FIRST_COMPLETED)
                back.cancel()
                forth.cancel()
        finally:
            with suppress(ProcessLookupError):
                relay.kill()
            await relay.wait()

    tasks: set[asyncio.Task[None]] = set()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(connect(reader, writer)))

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()
