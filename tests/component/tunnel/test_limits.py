"""What one address, one machine or one public port may take, the fall-back to stock asyncssh, and what operators see."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import asyncssh
import pytest

from reverse_tunnel import server
from reverse_tunnel.server import load_host_key
from tests.component.tunnel.machines import connect, echo_service, exchange, is_up
from tests.support.tunnel_site import BIND, open_site


@pytest.mark.parametrize("limits", [{"channels": 2}, {"connections_per_port": 2}])
async def test_public_connections_have_a_limit(tmp_path: Path, limits: dict[str, int]) -> None:
    async with open_site(tmp_path, limits=limits) as site, echo_service() as service:
        machine = await site.machine()
        async with connect(site, machine) as conn:
            port = (await conn.forward_remote_port("ssh", 0, BIND, service)).get_port()
            held = [await asyncio.open_connection(BIND, port) for _ in range(2)]
            for reader, writer in held:
                writer.write(b"x")
                assert await reader.read(1) == b"x"
            reader, writer = await asyncio.open_connection(BIND, port)
            assert await reader.read() == b""
            writer.close()
            held[0][1].write_eof()
            assert await held[0][0].read() == b""
            for _, writer in held:
                writer.close()
                await writer.wait_closed()
            assert await exchange(port, b"room again") == b"room again"


async def test_strangers_of_one_address_have_a_limit(tmp_path: Path) -> None:
    async with open_site(tmp_path, limits={"logins_per_address": 2}) as site:
        held = [await asyncio.open_connection(BIND, site.port) for _ in range(2)]
        for reader, _ in held:
            assert (await reader.readline()).startswith(b"SSH-2.0-fedmesh")
        held.append(await asyncio.open_connection(BIND, site.port))
        assert await held[-1][0].read() == b""
        for _, writer in held:
            writer.close()
            await writer.wait_closed()


async def test_whoever_does_not_log_in_is_cut(tmp_path: Path) -> None:
    async with open_site(tmp_path, limits={"login_seconds": 0.3}) as site:
        reader, writer = await asyncio.open_connection(BIND, site.port)
        async with asyncio.timeout(20):
            await reader.read()
        writer.close()


async def test_a_connection_may_try_a_few_keys_only(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        wrong = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(6)]
        with pytest.raises(asyncssh.DisconnectError):
            async with connect(site, machine, client_keys=[*wrong, str(machine.path)]):
                pass
        async with connect(site, machine, client_keys=[*wrong[:5], str(machine.path)]):
            pass


async def test_an_address_that_guesses_is_shut_out_until_it_is_trusted(tmp_path: Path) -> None:
    async with open_site(tmp_path, limits={"failures_per_minute": 3}) as site:
        machine = await site.machine()
        wrong = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(3)]
        with pytest.raises(asyncssh.PermissionDenied):
            async with connect(site, machine, client_keys=wrong):
                pass
        with pytest.raises((asyncssh.ConnectionLost, ConnectionResetError)):
            async with connect(site, machine):
                pass


async def test_a_machine_has_a_limit_of_connections(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine(ports=1)
        async with connect(site, machine) as first, AsyncExitStack() as stack:
            await first.forward_remote_port("ssh", 0, BIND, 9)
            idle = [
                await stack.enter_async_context(connect(site, machine)) for _ in range(1 + server.SPARE_CONNECTIONS)
            ]
            await idle[0].wait_closed()
            assert site.service.server.open_now() == (1 + server.SPARE_CONNECTIONS, 1)


async def test_a_busy_port_is_said(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        with socket.socket() as squatter:
            squatter.bind((BIND, site.config.tunnel.port_range.start))
            squatter.listen()
            async with connect(site, machine) as conn:
                with pytest.raises(asyncssh.ChannelListenError):
                    await conn.forward_remote_port("ssh", 0, BIND, 9)
        assert site.service.server.traffic.refusals["tunnel.port_busy"] == 1


async def test_public_ports_are_on_the_public_address_alone(tmp_path: Path) -> None:
    async with open_site(tmp_path, tunnel={"bind": "127.0.0.7"}) as site, echo_service() as service:
        machine = await site.machine()
        async with connect(site, machine) as conn:
            port = (await conn.forward_remote_port("0.0.0.0", 0, BIND, service)).get_port()
            assert await exchange(port, b"x", "127.0.0.7") == b"x"
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(BIND, port)


async def test_another_asyncssh_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TUNED_FOR", "0.0.1")
    payload = bytes(range(256)) * 20_000
    async with open_site(tmp_path, limits={"connections_per_port": 3}) as site, echo_service() as service:
        async with connect(site, await site.machine()) as conn:
            assert conn.get_extra_info("server_version") == "SSH-2.0-fedmesh"
            port = (await conn.forward_remote_port("web", 80, BIND, service)).get_port()
            up = await site.controller.until(is_up("web"))
            public = next(tunnel.port for tunnel in up.tunnels if tunnel.name == "web")
            assert port == 80
            for _ in range(3):
                assert await asyncio.gather(*(exchange(public, payload) for _ in range(3))) == [payload] * 3
            with pytest.raises(asyncssh.ChannelOpenError) as refusal:
                await conn.open_connection("127.0.0.1", 22)
            assert "tunnel.only_tunnels" in refusal.value.reason
        await site.controller.until(lambda told: len(told.tunnels) == 2 and told.revision > up.revision)


async def test_operators_see_what_happens(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, echo_service() as service:
        async with connect(site, await site.machine()) as conn:
            port = (await conn.forward_remote_port("ssh", 0, BIND, service)).get_port()
            assert await exchange(port, b"12345") == b"12345"
            with pytest.raises(asyncssh.ChannelOpenError):
                await conn.create_process("true")
            reader, writer = await asyncio.open_connection(BIND, site.http_port)
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            text = (await reader.read()).decode()
            writer.close()
        for line in (
            "fedmesh_tunnel_connections 1.0",
            "fedmesh_tunnel_ports_up 1.0",
            "fedmesh_tunnel_logins_total 1.0",
            'fedmesh_tunnel_bytes_total{to="machine"} 5.0',
            'fedmesh_tunnel_bytes_total{to="public"} 5.0',
            'fedmesh_tunnel_refusals_total{code="tunnel.only_tunnels"} 1.0',
        ):
            assert line in text


def test_the_host_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert load_host_key(path) == load_host_key(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["ssh-rsa", None])
def test_another_host_key_is_refused(tmp_path: Path, kind: str | None) -> None:
    path = tmp_path / "key"
    path.write_bytes(asyncssh.generate_private_key(kind).export_private_key() if kind else b"nothing")
    with pytest.raises(Exception, match=r"host_key") as error:
        load_host_key(path)
    assert error.value.code == "config.invalid"  # type: ignore[attr-defined]
