"""Controllers and the server, over a mesh in memory with both stores written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncssh
import pytest

from fedkit.errors import RemoteError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables
from fedkit.protocol import Empty
from fedkit.protocol.tunnel import Reserve, Revoke, TunnelLeases, TunnelLeasesPage, TunnelServer
from fedkit.store import Database
from tests.component.tunnel.machines import connect, is_up
from tests.support.tunnel_site import Controller, MachineKey, open_site


async def test_a_member_learns_where_machines_dial(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        assert site.controller.server is not None
        told = await site.controller.node.ask(site.controller.server, "tunnel.describe", Empty(), TunnelServer)
        assert (told.host, told.address, told.port) == ("tunnel.site-b.test", "127.0.0.1", site.port)
        key = asyncssh.import_public_key(told.host_key)
        assert await asyncssh.get_server_host_key("127.0.0.1", site.port) == key


async def test_grant_reserve_free_revoke(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        ask = site.controller
        machine = await site.machine()
        with_web = await ask.command("tunnel.reserve", Reserve(lease_id=machine.lease_id, name="web"))
        assert [tunnel["name"] for tunnel in with_web["tunnels"]] == ["ssh", "web"]
        without = await ask.command("tunnel.free", Reserve(lease_id=machine.lease_id, name="web"))
        assert [tunnel["name"] for tunnel in without["tunnels"]] == ["ssh"]
        assert ask.server is not None
        page = await ask.node.ask(ask.server, "tunnel.leases", TunnelLeasesPage(), TunnelLeases)
        assert [lease.lease_id for lease in page.leases] == [machine.lease_id]
        for _ in range(2):
            assert await ask.command("tunnel.revoke", Revoke(lease_id=machine.lease_id)) == {}
        with pytest.raises(RemoteError) as refusal:
            await ask.command("tunnel.reserve", Reserve(lease_id=machine.lease_id, name="web"))
        assert refusal.value.code == "tunnel.unknown_lease"


async def test_only_named_controllers_may(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site, Database(f"sqlite:///{tmp_path}/stranger.db") as db:
        with db.engine.begin() as conn:
            create_mesh_tables(conn)
        node = MeshNode(PrivateKey.generate(), "fm.site-c.test", db, site.network.link("fm.site-c.test"))
        stranger = Controller(node, db)
        stranger.server = site.controller.server
        assert stranger.server is not None
        async with node:
            with pytest.raises(RemoteError) as refusal:
                await stranger.grant(MachineKey.make(tmp_path))
            assert refusal.value.code == "tunnel.not_a_controller"
            with pytest.raises(RemoteError) as refusal:
                await node.ask(stranger.server, "tunnel.describe", Empty(), TunnelServer)
            assert refusal.value.code == "tunnel.not_a_controller"


async def test_a_controller_reaches_its_own_leases_alone(tmp_path: Path) -> None:
    other_key = PrivateKey.generate()
    mine = PrivateKey.generate()
    mine.save(tmp_path / "controller.pem")
    tunnel = {"controllers": [mine.fedid, other_key.fedid]}
    async with open_site(tmp_path, tunnel=tunnel) as site, Database(f"sqlite:///{tmp_path}/other.db") as db:
        with db.engine.begin() as conn:
            create_mesh_tables(conn)
        node = MeshNode(other_key, "fm.site-c.test", db, site.network.link("fm.site-c.test"))
        other = Controller(node, db)
        other.server = site.controller.server
        machine = await site.machine()
        async with node, connect(site, machine) as conn:
            await conn.forward_remote_port("ssh", 0, "127.0.0.1", 9)
            await other.command("tunnel.revoke", Revoke(lease_id=machine.lease_id))
            with pytest.raises(RemoteError) as refusal:
                await other.command("tunnel.free", Reserve(lease_id=machine.lease_id, name="ssh"))
            assert refusal.value.code == "tunnel.unknown_lease"
            assert site.service.server.open_now() == (1, 1)
            page = await node.ask(other.server, "tunnel.leases", TunnelLeasesPage(), TunnelLeases)  # type: ignore[arg-type]
            assert page.leases == []


async def test_revoking_disconnects_and_frees(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        async with connect(site, machine) as conn:
            await conn.forward_remote_port("ssh", 0, "127.0.0.1", 9)
            await site.controller.command("tunnel.revoke", Revoke(lease_id=machine.lease_id))
            await conn.wait_closed()
        assert site.service.server.open_now() == (0, 0)
        with pytest.raises(asyncssh.PermissionDenied):
            async with connect(site, machine):
                pass


async def test_freeing_closes_the_port_at_once(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        async with connect(site, machine) as conn:
            await conn.forward_remote_port("ssh", 0, "127.0.0.1", 9)
            await conn.forward_remote_port("web", 0, "127.0.0.1", 9)
            await site.controller.command("tunnel.free", Reserve(lease_id=machine.lease_id, name="web"))
            assert site.service.server.open_now() == (1, 1)


async def test_a_new_key_ends_the_old_ones_connections(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        async with connect(site, machine) as conn:
            fresh = MachineKey.make(tmp_path)
            fresh.lease_id = machine.lease_id
            await site.controller.grant(fresh)
            await conn.wait_closed()


async def test_a_lease_ends_by_itself(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine(seconds=1.5)
        async with connect(site, machine) as conn:
            await conn.forward_remote_port("ssh", 0, "127.0.0.1", 9)
            await conn.wait_closed()
        assert site.service.server.open_now() == (0, 0)
        with pytest.raises(RemoteError) as refusal:
            await site.controller.grant(machine, expires=datetime.now(UTC) - timedelta(seconds=1))
        assert refusal.value.code == "tunnel.already_expired"


async def test_a_restart_tells_who_is_no_longer_there(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        async with connect(site, machine) as conn:
            await conn.forward_remote_port("ssh", 0, "127.0.0.1", 9)
            before = await site.controller.until(is_up("ssh"))
            # as a crash: the tables still say that it is up when the process ends
            site.service._changed = lambda key: None  # type: ignore[method-assign]
            site.service.server._changed = lambda key: None
    async with open_site(tmp_path) as site:
        after = await site.controller.until(lambda told: not any(t.up for t in told.tunnels))
        assert after.revision > before.revision


async def test_names_reserved_on_demand_are_told(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        machine = await site.machine()
        async with connect(site, machine) as conn:
            await conn.forward_remote_port("web", 0, "127.0.0.1", 9)
            told = await site.controller.until(is_up("web"))
            assert [(t.name, t.up) for t in told.tunnels] == [("ssh", False), ("web", True)]


@pytest.mark.parametrize("broken", ["ssh-ed25519 AAAA", "ssh-rsa " + "A" * 300])
async def test_an_unusable_key_is_refused(tmp_path: Path, broken: str) -> None:
    async with open_site(tmp_path) as site:
        machine = MachineKey.make(tmp_path)
        machine.public = broken
        with pytest.raises(RemoteError) as refusal:
            await site.controller.grant(machine)
        assert refusal.value.code == "tunnel.unusable_key"
