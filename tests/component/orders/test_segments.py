"""Segments: pieces of experiments that a lender embeds by machines and networks of its own book. All in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from federation_member.orders import leases
from federation_member.orders.leases import Lease
from federation_member.orders.model import Order, OrderState
from fedkit.protocol.lending import ComputeSpec, LeaseChange, NetworkSpec
from fedkit.protocol.segments import Connection, NodeStatus, SegmentGo, SegmentInfo, SegmentSpec
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.segments import KEY, connector, ordered, piece


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
    await a.db.run(lambda tx: a.orders.engine.lenders.change(tx, b.peer, body))


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
    assert (network.cidr, network.verbatim) == ("10.1.2.0/24", False)
    ids = [found["network/wire1"].id, found["network/wire2"].id]
    assert node.networks == ids
    assert node.addresses == dict(zip(ids, ["10.1.1.3", "10.1.2.2"], strict=True))
    assert node.ssh_keys == [KEY]
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
