"""Segments: pieces of experiments that a lender embeds by machines and networks of its own book. All in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from federation_member.access import grants
from federation_member.errors import UnknownLease
from federation_member.orders import leases
from federation_member.orders.leases import Lease
from federation_member.orders.model import Order, OrderState
from federation_member.usage.tables import usage
from fedkit.errors import FedError
from fedkit.protocol.lending import ComputeSpec, LeaseChange, LeaseRelease, NetworkSpec, Power
from fedkit.protocol.segments import (
    Connection,
    NodeStatus,
    Operate,
    Operated,
    Operation,
    SegmentGo,
    SegmentInfo,
    SegmentSpec,
)
from tests.support.fake_middleware import Cloud
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.policies import rule
from tests.support.segments import KEY, connector, ordered, piece
from tests.support.virtual_time import Crash, InlineDatabase

PEER = Connection(connector="fartunnel0", peer_key=KEY, host="tunnel.test", port=20001, host_key=KEY)


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


async def promised(a: Member, spec: SegmentSpec, at: str = "b.test") -> Order:
    """Order a segment and wait until it is promised."""
    (order,) = await a.orders.create(USER, ordered(spec, location=at), None)
    return await a.until(order.id, OrderState.PENDING, lambda order: order.instance is not None)


async def go(a: Member, b: Member, order: Order, *connections: Connection) -> None:
    """Tell the lender to start a segment, or of its connections."""
    body = LeaseChange(lease_id=str(order.lease_id), segment=SegmentGo(connections=list(connections)))
    await a.db.run(lambda tx: a.mesh.enqueue(tx, b.peer, "lease.change", body))


async def running(a: Member, b: Member, spec: SegmentSpec, *connections: Connection) -> Order:
    """Have a segment that runs."""
    order = await promised(a, spec)
    await go(a, b, order, *connections)
    return await a.until(order.id, OrderState.FULFILLED)


def info(order: Order) -> SegmentInfo:
    """What is known of a segment."""
    assert order.instance is not None
    assert order.instance.segment is not None
    return order.instance.segment


async def parts(b: Member, order: Order) -> dict[str, Lease]:
    """The children of a segment that have not ended, by what they are."""
    found = await b.db.read(lambda conn: leases.children(conn, str(order.lease_id)))
    return {child.part: child for child in found.values() if child.state not in leases.ENDED}


@in_virtual_time
async def test_nothing_runs_before_it_is_told_to_but_keys_are_known(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await promised(a, piece(("a", "b"), connectors=[connector("wire1", active=True)]))
    await asyncio.sleep(3600)
    assert b.cloud.made == []
    assert (await a.order(order.id)).state is OrderState.PENDING
    (portal,) = info(await a.order(order.id)).portals
    assert str(portal.public_key).startswith("ssh-ed25519 ")
    assert portal.status is NodeStatus.STARTING


@in_virtual_time
async def test_a_started_segment_is_machines_on_networks_with_their_addresses(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    spec = piece(("a", "b"), ("b", "c"), nodes={"a": {"startup": "echo 'hi'", "type": "large"}}, ssh_keys=[KEY])
    order = await running(a, b, spec)
    found = await parts(b, order)
    assert set(found) == {"network/wire1", "network/wire2", "node/a", "node/b", "node/c"}
    network, node = found["network/wire2"].spec, found["node/b"].spec
    assert isinstance(network, NetworkSpec)
    assert isinstance(node, ComputeSpec)
    assert (network.cidr, network.verbatim) == ("10.1.2.0/24", True)
    ids = [found["network/wire1"].id, found["network/wire2"].id]
    assert node.networks == ids
    assert node.addresses == dict(zip(ids, ["10.1.1.3", "10.1.2.2"], strict=True))
    assert node.ssh_keys[0] == KEY
    assert len(node.ssh_keys) == 2  # the other is its lender's own
    assert "10.1.2.3 c" in node.user_data
    assert [node.status for node in info(order).nodes] == [NodeStatus.RUNNING] * 3
    assert str(found["node/a"].flavour and found["node/a"].flavour.name) == "large"
    assert b.cloud.misdeeds == []


@in_virtual_time
async def test_its_end_leaves_nothing(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b"), ("b", "c")))
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED)
    assert b.cloud.instances == {}
    assert b.cloud.misdeeds == []
    assert await b.book() == set()


async def lost(b: Member, order: Order, part: str) -> None:
    """The lender's cloud loses a part of a segment."""
    b.cloud.lose((await parts(b, order))[part].id)


@in_virtual_time
async def test_it_fails_with_a_node_and_leaves_nothing(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b")))
    await lost(b, order, "node/a")
    closed = await a.until(order.id, OrderState.CLOSED)
    assert closed.code == "lease.lost"
    assert "node/a" in closed.reason
    await world.settle(lambda: not b.cloud.instances)
    assert b.cloud.misdeeds == []


@pytest.mark.parametrize("action", ["nonfatal", "ignore"])
@in_virtual_time
async def test_a_node_that_may_fail_does_so_alone(world: Federation, action: str) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b"), nodes={"a": {"failureaction": action}}))
    await lost(b, order, "node/a")
    await asyncio.sleep(3600)
    order = await a.until(order.id, OrderState.FULFILLED)
    assert [node.status for node in info(order).nodes] == [NodeStatus.FAILED, NodeStatus.RUNNING]
    assert "gone" in info(order).nodes[0].reason


@pytest.mark.parametrize(
    ("cloud", "images", "word"),
    [
        ({"flavours": []}, ["*"], "no flavour"),
        ({}, ["fedora"], "no image"),
        ({"images": ["debian", "fedora"], "portals": {"debian"}}, ["fedora"], "portal = true"),
    ],
)
@in_virtual_time
async def test_what_its_rule_does_not_lend_refuses_it(
    world: Federation, cloud: dict[str, Any], images: list[str], word: str
) -> None:
    a = await world.add("a")
    await world.add("b", Cloud(**cloud), lends=rule("some", "*/*/*", may=["segment"], images=images))
    spec = piece(("a", "b"), connectors=[connector("wire1", active=True)])
    (order,) = await a.orders.create(USER, ordered(spec, location="b.test"), None)
    order = await a.until(order.id, OrderState.OPEN, lambda order: order.code == "segment.unusable")
    assert word in order.reason


@pytest.mark.parametrize(
    ("active", "portals", "word"),
    [(True, set[str](), "no image that portals"), (False, {"debian"}, "no tunnel server")],
)
@in_virtual_time
async def test_who_cannot_have_its_portals_is_not_asked(
    world: Federation, active: bool, portals: set[str], word: str
) -> None:
    a = await world.add("a")
    await world.add("b", Cloud(portals=portals))
    spec = piece(("a", "b"), connectors=[connector("wire1", active=active)])
    (order,) = await a.orders.create(USER, ordered(spec, location="b.test"), None)
    order = await a.until(order.id, OrderState.OPEN, lambda order: word in order.reason)
    assert order.lease_id is None


@pytest.mark.parametrize(
    ("description", "word"),
    [
        ("<experiment/>", "version"),
        ("no xml", ""),
        (piece(("a", "b")).description.replace("10.1.1.3", "10.9.9.9"), "others are in"),
        (piece(("a", "b")).description.replace("10.1.1.3", "10.1.1.300"), "no address"),
        (piece(("a", "b")).description.replace("<name>a<", "<name>a b<"), "no name"),
    ],
)
@pytest.mark.parametrize("where", ["a.test", "b.test"])
@in_virtual_time
async def test_what_cannot_be_embedded_is_refused_at_once(
    world: Federation, description: str, word: str, where: str
) -> None:
    a, b = await world.add("a"), await world.add("b")
    spec = piece(("a", "b")).model_copy(update={"description": description})
    (order,) = await a.orders.create(USER, ordered(spec, location=where), None)
    order = await a.until(order.id, OrderState.OPEN, lambda order: bool(order.code))
    assert word in order.reason
    for member in (a, b):
        assert await member.db.read(grants.active) == []


@in_virtual_time
async def test_a_rule_must_allow_segments(world: Federation) -> None:
    a = await world.add("a")
    await world.add("b", lends=rule("machines", "*/*/*", may=["compute", "network"]))
    (order,) = await a.orders.create(USER, ordered(piece(("a", "b")), location="b.test"), None)
    await a.until(order.id, OrderState.OPEN, lambda order: order.code == "member.not_allowed")


@in_virtual_time
async def test_its_machines_are_of_what_the_rule_lends(world: Federation) -> None:
    a = await world.add("a")
    policy = rule("some", "*/*/*", may=["segment"], flavours=["large"], images=["win*"])
    b = await world.add("b", Cloud(images=["debian", "windows"]), lends=policy)
    nodes = {"a": {"type": "small"}}
    order = await running(a, b, piece(("a", "b"), nodes=nodes))
    made = [child for part, child in (await parts(b, order)).items() if part.startswith("node/")]
    assert {child.flavour.name for child in made if child.flavour} == {"large"}
    assert {child.spec.image for child in made if isinstance(child.spec, ComputeSpec)} == {"windows"}


@in_virtual_time
async def test_portals_come_when_all_is_known_and_one_follows_the_other(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    await tunnels.start()
    a, b = await world.add("a"), await world.add("b", tunnel_server=tunnels.peer)
    await asyncio.sleep(1)  # `a` knows what `b` lends
    connectors = [connector("wire1", active=True, name="north"), connector("wire1", active=False, name="south")]
    peer = {"peer_key": KEY, "host": "tunnel.test", "port": 20001, "host_key": KEY}
    order = await running(a, b, piece(("a", "b"), connectors=connectors), Connection(connector="north", peer_key=KEY))
    assert set(await parts(b, order)) == {"network/wire1", "node/a", "node/b"}
    await go(a, b, order, Connection(connector="north", **peer), Connection(connector="south", peer_key=KEY))  # type: ignore[arg-type]
    await asyncio.sleep(5)
    found = await parts(b, order)
    north, network = found["portal/north"], found["network/wire1"].spec
    assert isinstance(north.spec, ComputeSpec)
    assert isinstance(network, NetworkSpec)
    assert (north.spec.carries_frames, network.verbatim) == (True, True)
    assert (north.spec.networks, north.spec.addresses) == ([found["network/wire1"].id], {})
    assert "HOST=tunnel.test" in north.spec.user_data
    assert [portal.status for portal in info(await a.order(order.id)).portals] == [NodeStatus.RUNNING] * 2
    b.cloud.gate.clear()
    peer["port"] = 20002
    await go(a, b, order, Connection(connector="north", **peer), Connection(connector="south", peer_key=KEY))  # type: ignore[arg-type]
    await asyncio.sleep(5)
    assert (await parts(b, order))["portal/north"].id == north.id
    b.cloud.gate.set()
    await asyncio.sleep(60)
    after = await parts(b, order)
    assert after["portal/north"].id != north.id
    assert after["portal/south"].id == found["portal/south"].id
    assert len(b.cloud.instances) == 5
    await tunnels.stop()


@in_virtual_time
async def test_its_parts_last_as_long_as_it_does(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b")))
    await asyncio.sleep(7200)
    assert len(b.cloud.instances) == 3
    lease = await b.lease(str(order.lease_id))
    assert {child.expires for child in (await parts(b, order)).values()} == {lease.expires}
    world.network.cut(a.address, b.address)
    await asyncio.sleep((lease.expires - world.clock()).total_seconds() + 60)
    assert b.cloud.instances == {}
    assert b.cloud.misdeeds == []


@in_virtual_time
async def test_a_large_segment_runs_and_its_borrower_is_not_drowned_in_news(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    names = [f"n{number}" for number in range(200)]
    order = await running(a, b, piece(*([tuple(names[start : start + 50]) for start in range(0, 200, 50)])))
    assert len(b.cloud.instances) == 204
    began = (await b.lease(str(order.lease_id))).created
    lease = await b.lease(str(order.lease_id))
    assert lease.revision < (world.clock() - began).total_seconds() + 5
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED)
    assert b.cloud.instances == {}


@in_virtual_time
async def test_its_time_counts_once_with_all_its_machines(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b"), nodes={"a": {"type": "large"}}))
    lease = await b.lease(str(order.lease_id))
    assert [(spell.vcpu, spell.ram_mb) for spell in lease.spells] == [(5, 4608)]
    for member in (a, b):
        rows = await member.db.read(lambda conn: conn.execute(select(usage)).all())
        assert [(row.kind, row.vcpu) for row in rows] == [("segment", 5)]


@in_virtual_time
async def test_nodes_are_stopped_started_and_looked_at(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b")))
    node = (await parts(b, order))["node/a"]

    async def operate(operation: Operation, *nodes: str) -> Operated:
        body = Operate(lease_id=str(order.lease_id), operation=operation, nodes=list(nodes))
        return await a.mesh.ask(b.peer, "segment.operate", body, Operated)

    done = await operate(Operation.STOP, "a", "z")
    assert (set(done.output), set(done.failed)) == ({"a"}, {"z"})
    await asyncio.sleep(10)
    statuses = [node.status for node in info(await a.order(order.id)).nodes]
    assert statuses == [NodeStatus.STOPPED, NodeStatus.RUNNING]
    assert b.cloud.powers == {node.id: Power.STOPPED}
    await operate(Operation.START)
    await asyncio.sleep(10)
    assert [node.status for node in info(await a.order(order.id)).nodes] == [NodeStatus.RUNNING] * 2
    b.cloud.consoles[node.id] = "login: "
    assert (await operate(Operation.CONSOLE, "a")).output == {"a": "login: "}


@in_virtual_time
async def test_its_parts_are_nobodys_to_name(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b")))
    child = (await parts(b, order))["node/a"]
    lending = b.orders.engine.lending
    with pytest.raises(UnknownLease):
        await b.db.run(lambda tx: lending.release(tx, a.peer, LeaseRelease(lease_id=child.id)))
    change = LeaseChange(lease_id=child.id, power=Power.STOPPED)
    with pytest.raises(UnknownLease):
        await b.db.run(lambda tx: lending.wish(tx, a.peer, change))


def die_after(member: Member, commits: int) -> None:
    """Let a member die at a commit, and do nothing more."""
    assert isinstance(member.db, InlineDatabase)
    left = commits

    def on_commit(_moment: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            member.middleware.dead = True
            raise Crash

    member.db.on_commit = on_commit


@pytest.mark.parametrize("commits", range(0, 40, 4))
@in_virtual_time
async def test_a_lender_that_dies_while_it_starts_one_goes_on(world: Federation, commits: int) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await promised(a, piece(("a", "b"), ("b", "c"), connectors=[connector("wire1", active=True)]))
    die_after(b, commits)
    with suppress(Crash, FedError):
        await go(a, b, order, PEER)
        await asyncio.sleep(10)
    await b.kill()
    await b.start()
    order = await a.until(order.id, OrderState.FULFILLED)
    await asyncio.sleep(60)
    assert len(b.cloud.instances) == len(set(b.cloud.made)) == 6
    assert b.cloud.misdeeds == []


@pytest.mark.parametrize("commits", range(0, 40, 4))
@in_virtual_time
async def test_a_lender_that_dies_while_it_ends_one_leaves_nothing(world: Federation, commits: int) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b, piece(("a", "b"), ("b", "c")))
    die_after(b, commits)
    with suppress(Crash):
        await a.orders.delete(USER, order.id)
        await asyncio.sleep(10)
    await b.kill()
    await b.start()
    await a.until(order.id, OrderState.DELETED)
    assert b.cloud.instances == {}
    assert b.cloud.misdeeds == []
    assert await b.book() == set()


async def test_a_segment_on_both_databases(world_on_both: Federation) -> None:
    a, b = await world_on_both.add("a"), await world_on_both.add("b")
    order = await running(a, b, piece(("a", "b"), connectors=[connector("wire1", active=True)]))
    await go(a, b, order, PEER)
    await a.until(order.id, OrderState.FULFILLED, lambda order: info(order).portals[0].status is NodeStatus.RUNNING)
    assert len(b.cloud.instances) == 4
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED)
    assert b.cloud.instances == {}
    assert b.cloud.misdeeds == []
