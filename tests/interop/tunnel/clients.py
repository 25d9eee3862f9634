"""Stock OpenSSH and Dropbear as a machine has them, and a service behind them."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.tunnel_site import BIND, MachineKey

SSH = [
    "ssh",
    "-v",
    "-F",
    "none",
    "-T",
    "-o",
    "IdentitiesOnly=yes",
    "-o",
    "BatchMode=yes",
    "-o",
    "StrictHostKeyChecking=yes",
]


@dataclass
class Client:
    """A running ssh client; `said` is what it told on standard error."""

    process: asyncio.subprocess.Process
    said: str = ""
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            async with self.news:
                self.said += line.decode(errors="replace")
                self.news.notify_all()

    async def says(self, text: str) -> None:
        """Wait until it has told `text`."""
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: text in self.said)

    async def ends(self) -> int:
        """Wait for its exit status."""
        async with asyncio.timeout(20):
            return await self.process.wait()


def openssh(machine: MachineKey, port: int, known_hosts: Path, *arguments: str, user: str = "tunnel") -> list[str]:
    """The command of a stock OpenSSH client."""
    return [
        *SSH,
        "-i",
        str(machine.path),
        "-o",
        f"UserKnownHostsFile={known_hosts}",
        "-p",
        str(port),
        *arguments,
        f"{user}@{BIND}",
    ]


def dropbear(machine: MachineKey, port: int, _known_hosts: Path, *arguments: str, user: str = "tunnel") -> list[str]:
    """The command of a stock Dropbear client; it reads keys in a format of its own."""
    own = machine.path.with_suffix(".dropbear")
    if not own.exists():
        subprocess.run(["dropbearconvert", "openssh", "dropbear", machine.path, own], check=True, capture_output=True)
    return ["dbclient", "-y", "-y", "-T", "-i", str(own), "-p", str(port), *arguments, f"{user}@{BIND}"]


@asynccontextmanager
async def running(command: list[str]) -> AsyncIterator[Client]:
    """Run a client while the context is open."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    client = Client(process)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(client.listen())
        try:
            yield client
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


def write_known_hosts(folder: Path, port: int, host_key: str) -> Path:
    """A known_hosts file that pins the server, as a machine's user data does."""
    path = folder / "known_hosts"
    path.write_text(f"[{BIND}]:{port} {host_key}\n")
    return path


@asynccontextmanager
async def echo_service(greeting: bytes = b"") -> AsyncIterator[int]:
    """A service of the machine: says `greeting`, then echoes; closes its half when the client has closed its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(greeting)
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, BIND, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def exchange(port: int, data: bytes) -> bytes:
    """Send `data` to a public port, close that half, and return everything that comes back."""
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(BIND, port)

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send())
            answer = await reader.read()
        writer.close()
        return answer
