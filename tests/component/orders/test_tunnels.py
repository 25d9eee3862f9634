"""A machine's tunnels follow its lease, from the lender's tunnel server to the user's order."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from federation_member.errors import NotRunning, NoTunnel
from federation_member.middleware.contract import ComputeRequest
from federation_member.orders import leases
from federation_member.orders.model import Order, OrderState
from fedkit.errors import RemoteError
from fedkit.protocol.tunnel import Granted
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation, Member, machine

LARGE_ONLY = "vcpu >= 4"


@pytest.fixture
async def server(world: Federation) -> AsyncIterator[FakeTunnelServer]:
    """A tunnel server with two ports."""
    server = FakeTunnelServer(world, ports=2)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def a(world: Federation) -> Member:
    """The borrower."""
    return await world.add("a", Cloud(flavours=[SMALL]))


@pytest.fixture
async def b(world: Federation, server: FakeTunnelServer) -> Member:
    """The lender, with a tunnel server."""
    return await world.add("b", tunnel_server=server.peer)


async def running(a: Member, **changes: object) -> Order:
    """A machine at the lender, with its ssh port."""
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, **changes), None))[0]
    return await a.until(order.id, OrderState.FULFILLED, lambda o: bool(o.tunnels))


async def test_the_machine_gets_a_key_that_the_server_knows(a: Member, b: Member, server: FakeTunnelServer) -> None:
    order = await running(a)
    assert [(t.name, t.host, t.up) for t in order.tunnels] == [("ssh", "tunnel.dmz.test", False)]
    request = b.cloud.instances[str(order.lease_id)]
    assert isinstance(request, ComputeRequest)
    assert request.tunnel is not None
    private = load_ssh_private_key(request.tunnel.private_key.encode(), None)
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert server.rights[str(order.lease_id)].public_key == public
    assert (request.tunnel.address, request.tunnel.port) == ("192.0.2.7", 2222)
    lease = await b.db.read(lambda conn: leases.load(conn, str(order.lease_id)))
    assert lease is not None
    assert lease.tunnel is not None
    assert lease.tunnel.private_key == ""  # forgotten once the machine has it


async def test_a_tunnel_that_comes_up_is_told_to_the_user(a: Member, b: Member, server: FakeTunnelServer) -> None:
    order = await running(a)
    await server.come_up(str(order.lease_id), "ssh")
    order = await a.until(order.id, OrderState.FULFILLED, lambda o: o.tunnels[0].up)
    events = (await a.orders.why(USER, order.id)).events
    assert events[-1].sequence > events[-2].sequence


async def test_tunnels_open_and_close_on_demand(a: Member, b: Member, server: FakeTunnelServer) -> None:
    order = await running(a)
    order = await a.orders.open_tunnel(USER, order.id, "http")
    assert {tunnel.name for tunnel in order.tunnels} == {"ssh", "http"}
    again = await a.orders.open_tunnel(USER, order.id, "http")
    assert again.tunnels == order.tunnels
    order = await a.orders.close_tunnel(USER, order.id, "http")
    assert {tunnel.name for tunnel in order.tunnels} == {"ssh"}


async def test_an_orders_share_of_ports_is_kept(a: Member, b: Member) -> None:
    order = await running(a, tunnel_ports=1)
    with pytest.raises(RemoteError) as caught:
        await a.orders.open_tunnel(USER, order.id, "http")
    assert caught.value.code == NoTunnel.code


async def test_no_port_left_is_told(a: Member, b: Member, server: FakeTunnelServer) -> None:
    first = await running(a)
    await running(a)
    with pytest.raises(RemoteError) as caught:
        await a.orders.open_tunnel(USER, first.id, "http")
    assert caught.value.code == "tunnel.no_port_left"
    third = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    third = await a.until(third.id, OrderState.OPEN, lambda o: o.code == "tunnel.no_port_left")
    assert "Every port of this server is in use" in third.reason


async def test_ports_go_back_with_the_lease(world: Federation, a: Member, b: Member, server: FakeTunnelServer) -> None:
    order = await running(a)
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED)
    await world.settle(lambda: not server.rights)


async def test_the_right_is_kept_alive_with_the_lease(
    world: Federation, a: Member, b: Member, server: FakeTunnelServer
) -> None:
    order = await running(a, lease_seconds=7200)
    before = server.rights[str(order.lease_id)].expires
    for _ in range(3):
        expires = (await a.order(order.id)).lease_expires
        world.advance(2401)
        await a.until(order.id, OrderState.FULFILLED, lambda o, old=expires: o.lease_expires != old)  # type: ignore[misc]
    await world.settle(lambda: server.rights[str(order.lease_id)].expires > before)


async def test_a_machine_without_tunnels_says_so(world: Federation, a: Member) -> None:
    await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    with pytest.raises(NotRunning):
        await a.orders.open_tunnel(USER, order.id, "http")
    await a.until(order.id, OrderState.FULFILLED)
    with pytest.raises(RemoteError) as caught:
        await a.orders.open_tunnel(USER, order.id, "http")
    assert caught.value.code == NoTunnel.code


async def test_own_machines_have_tunnels_too(b: Member, server: FakeTunnelServer) -> None:
    order = (await b.orders.create(USER, machine(), None))[0]
    await b.until(order.id, OrderState.FULFILLED, lambda o: bool(o.tunnels))
    order = await b.orders.open_tunnel(USER, order.id, "http")
    assert {tunnel.name for tunnel in order.tunnels} == {"ssh", "http"}
    await b.orders.delete(USER, order.id)
    await b.until(order.id, OrderState.DELETED)


async def test_only_the_tunnel_server_speaks_of_tunnels(world: Federation, a: Member, b: Member) -> None:
    order = await running(a)
    lie = Granted(lease_id=str(order.lease_id), revision=99, expires=world.clock(), tunnels=[])
    await a.db.run(lambda tx: a.mesh.enqueue(tx, b.peer, "tunnel.changed", lie))
    other = await running(a)
    assert other.tunnels
    assert (await a.order(order.id)).tunnels == order.tunnels
