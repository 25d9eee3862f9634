"""The byte path against stock asyncssh as client: nothing is lost, doubled, mixed up or held without bound."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from asyncssh.packet import String, UInt32

from fedkit.ssh import connection
from reverse_tunnel import server
from tests.component.tunnel.machines import connect, echo_service, exchange
from tests.support.tunnel_site import BIND, Site, open_site

PAYLOAD = random.Random(1).randbytes(3_000_000)


@asynccontextmanager
async def tunnel(site: Site, service: int, **more: Any) -> AsyncIterator[tuple[asyncssh.SSHClientConnection, int]]:
    """A machine with one tunnel; yields its connection and the public port."""
    async with connect(site, await site.machine(), **more) as conn:
        listener = await conn.forward_remote_port("ssh", 0, BIND, service)
        yield conn, listener.get_port()


@pytest.mark.parametrize("cipher", ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"])
async def test_octets_pass_unchanged_with_each_cipher(tmp_path: Path, cipher: str) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        async with tunnel(site, service, encryption_algs=[cipher]) as (_, port):
            assert await asyncio.gather(*(exchange(port, PAYLOAD[i:]) for i in range(4))) == [
                PAYLOAD[i:] for i in range(4)
            ]
        assert site.service.server.traffic.to_machine == site.service.server.traffic.to_public > 4 * 2_999_997


async def test_only_gcm_is_offered(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        for cipher in ("chacha20-poly1305@openssh.com", "aes256-ctr", "aes128-cbc"):
            with pytest.raises(asyncssh.KeyExchangeFailed):
                async with connect(site, machine, encryption_algs=[cipher]):
                    pass


async def test_dropbears_cipher_works_too(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        more = {"encryption_algs": ["chacha20-poly1305@openssh.com"], "client_version": "dropbear_2022.83"}
        async with tunnel(site, service, **more) as (_, port):
            assert await exchange(port, PAYLOAD) == PAYLOAD


@pytest.mark.parametrize(("window", "packet"), [(1, 1), (7, 100), (1000, 333), (40_000, 32_768), (1 << 20, 1 << 17)])
async def test_any_window_and_packet_size(tmp_path: Path, window: int, packet: int) -> None:
    """Windows are opened by the client as it likes; here as stock asyncssh does."""
    received = bytearray()
    finished = asyncio.Event()

    class Sink(asyncssh.SSHTCPSession[bytes]):
        def data_received(self, data: bytes, datatype: Any) -> None:
            received.extend(data)

        def eof_received(self) -> bool:
            finished.set()
            return False

    sent = PAYLOAD[: min(len(PAYLOAD), window * 300)]
    async with open_site(tmp_path) as site, connect(site, await site.machine()) as conn:
        accept = await conn.create_server(lambda _host, _port: Sink(), "ssh", 0, window=window, max_pktsize=packet)
        _, writer = await asyncio.open_connection(BIND, accept.get_port())
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(30):
            await finished.wait()
        writer.close()
    assert received == sent


async def test_the_server_rekeys_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REKEY_BYTES", 300_000)
    async with open_site(tmp_path) as site, echo_service() as service, tunnel(site, service) as (_, port):
        assert await asyncio.gather(*(exchange(port, PAYLOAD) for _ in range(3))) == [PAYLOAD] * 3


async def test_a_service_that_is_not_there(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        with socket.socket() as closed:
            closed.bind((BIND, 0))
            async with tunnel(site, closed.getsockname()[1]) as (conn, port):
                with pytest.raises(ConnectionResetError):
                    await exchange(port, b"anybody?")
                assert not conn.is_closed()


async def test_a_cut_is_no_end(tmp_path: Path) -> None:
    """The public side must not take a lost tunnel for the end of a file."""
    async with open_site(tmp_path) as site, echo_service() as service, tunnel(site, service) as (conn, port):
        reader, writer = await asyncio.open_connection(BIND, port)
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        conn.abort()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_full_window_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    """One public client does not read what the machine sends; another of the same tunnel goes on."""
    async with open_site(tmp_path) as site:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await reader.readexactly(1)
            try:
                for _ in range(1 if asked == b"s" else 1000):
                    writer.write(bytes(100_000))
                    await writer.drain()
            except ConnectionError:
                pass
            writer.close()

        async with await asyncio.start_server(serve, BIND, 0) as service:
            there = service.sockets[0].getsockname()[1]
            async with tunnel(site, there) as (_, port):
                with socket.create_connection((BIND, port)) as lazy:
                    lazy.sendall(b"l")
                    for _ in range(5):
                        assert len(await exchange(port, b"s")) == 100_000


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (94, UInt32(0) + UInt32(5) + b"abc"),
        (94, UInt32(0) + String(bytes(300_000))),
        (94, UInt32(9) + String(b"no such channel")),
        (93, UInt32(0) + UInt32(2**32 - 1)),
        (95, UInt32(0) + UInt32(1) + String(b"extended")),
        (91, UInt32(0) + UInt32(0) + UInt32(1) + UInt32(1)),
        (96, b""),
        (97, UInt32(0) + UInt32(0)),
        (99, UInt32(0)),
        (200, b"?"),
    ],
    ids=[
        "short",
        "beyond-window",
        "unknown-channel",
        "window-overflow",
        "extended",
        "reopened",
        "truncated",
        "long",
        "reply",
        "odd",
    ],
)
async def test_malformed_channel_messages_harm_nobody_else(tmp_path: Path, kind: int, body: bytes) -> None:
    async with open_site(tmp_path) as site, echo_service() as service, tunnel(site, service) as (_, other_port):
        async with tunnel(site, service) as (conn, port):
            reader, writer = await asyncio.open_connection(BIND, port)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            conn.send_packet(kind, body)
            if kind not in (97, 200):
                async with asyncio.timeout(20):
                    await conn.wait_closed()
            writer.close()
        assert await exchange(other_port, b"fine") == b"fine"
        assert len(site.service.server._machines) == 1


async def test_a_packet_altered_on_the_way_ends_the_connection(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, echo_service() as service, tunnel(site, service) as (conn, _):
        sealed = bytearray(100 + 4 + 16)
        sealed[:4] = UInt32(96)
        conn._transport.write(bytes(sealed))  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            await conn.wait_closed()


async def test_answers_that_nobody_reads_end_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_UNSENT", 300_000)
    async with open_site(tmp_path) as site, connect(site, await site.machine()) as conn:
        transport = conn._transport
        assert transport is not None
        transport.pause_reading()
        question = String("unknown") + UInt32(0) + UInt32(1000) + UInt32(1000)
        async with asyncio.timeout(100):
            while site.service.server.open_now() == (1, 0):
                for _ in range(500):
                    conn.send_packet(90, question)
                await asyncio.sleep(0)
