"""Servers of images: one that says octet for octet what a test tells it to, and names that change their meaning."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Remembers what was asked; `answers` are by path, and any other path is not found."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[str] = []
        self.port = 0
        self.host = ""
        self.scheme = "http"

    def url(self, path: str) -> str:
        """Where `path` is."""
        return f"{self.scheme}://{self.host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            await self.answers.get(head.split()[1], status("404 Not Found"))(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # who asked went away, as these tests make it do
        finally:
            writer.close()


@asynccontextmanager
async def serving(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A server while the context is open."""
    server = Server()
    listener = await asyncio.start_server(server.serve, host, 0, ssl=tls)
    server.host, server.port = listener.sockets[0].getsockname()[:2]
    server.scheme = "https" if tls else "http"
    try:
        yield server
    finally:
        listener.close()


def says(text: bytes) -> Answer:
    """Exactly these octets, whatever they mean."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text)

    return answer


def status(line: str, **headers: str) -> Answer:
    """A status without content."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return says(f"HTTP/1.1 {line}\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())


def redirect(target: str) -> Answer:
    """A redirect."""
    return status("302 Found", Location=target)


def file(content: bytes, length: int | None = None) -> Answer:
    """A file, said to have `length` octets."""
    return says(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(content) if length is None else length) + content
    )


def endless(block: bytes, first: bytes = b"", length: int | None = None) -> Answer:
    """A file that never ends, as fast as it is read."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        announced = b"" if length is None else b"Content-Length: %d\r\n" % length
        writer.write(b"HTTP/1.1 200 OK\r\n" + announced + b"Connection: close\r\n\r\n" + first)
        while True:
            writer.write(block)
            await writer.drain()

    return answer


def trickle(first: bytes) -> Answer:
    """A file that comes octet by octet after its beginning."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + first)
        while True:
            writer.write(b"\x00")
            await writer.drain()
            await asyncio.sleep(0.01)

    return answer


async def silence(_writer: asyncio.StreamWriter) -> None:
    """Nothing at all until the client gives up."""
    await asyncio.sleep(3600)


async def reset(writer: asyncio.StreamWriter) -> None:
    """A connection reset in the middle of the content."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
    await writer.drain()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()


class Names(AbstractResolver):
    """A name server of a test: each look at a name gives the next of its answers, the last one for ever."""

    def __init__(self, **names: list[list[str]]) -> None:
        self._names = names

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The answer of this time."""
        answers = self._names.get(host.replace(".", "_"))
        if not answers:
            raise OSError(socket.EAI_NONAME, "no such name")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def certificate(folder: Path, host: str = "127.0.0.1") -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for an address: its file, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return public, context
