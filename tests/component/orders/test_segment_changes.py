"""A segment that runs is changed: what stays stays as it is, and a change that fails has changed nothing. In virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from federation_member.middleware.contract import NoQuota
from federation_member.orders import leases
from federation_member.orders.leases import Lease
from federation_member.orders.model import Order, OrderState
from fedkit.protocol.lending import ComputeSpec, LeaseChange
from fedkit.protocol.segments import Connection, NodeStatus, SegmentGo, SegmentInfo, SegmentSpec
from tests.support.fake_middleware import Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.segments import KEY, connector, ordered, piece

FIRST = piece(("a", "b"))


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


def larger(version: int = 2, **changes: object) -> SegmentSpec:
    """The first piece with a computer and a network more."""
    return piece(("a", "b"), ("c", "d"), version=version, **changes)


async def go(a: Member, b: Member, order: Order, wanted: SegmentGo) -> None:
    """Tell the lender how it is to be."""
    body = LeaseChange(lease_id=str(order.lease_id), segment=wanted)
    await a.db.run(lambda tx: a.mesh.enqueue(tx, b.peer, "lease.change", body))
    await asyncio.sleep(5)


async def running(a: Member, b: Member) -> Order:
    """The first piece, which runs."""
    (order,) = await a.orders.create(USER, ordered(FIRST, location="b.test"), None)
    order = await a.until(order.id, OrderState.PENDING, lambda order: order.instance is not None)
    await go(a, b, order, SegmentGo())
    return await a.until(order.id, OrderState.FULFILLED)


async def info(a: Member, order: Order) -> SegmentInfo:
    """What its borrower knows of it."""
    found = await a.order(order.id)
    assert found.instance is not None
    assert found.instance.segment is not None
    return found.instance.segment


async def parts(b: Member, order: Order) -> dict[str, Lease]:
    """The children that have not ended, by what they are."""
    found = await b.db.read(lambda conn: leases.children(conn, str(order.lease_id)))
    return {child.part: child for child in found.values() if child.state not in leases.ENDED}


@in_virtual_time
async def test_a_promise_changes_nothing_and_then_it_grows(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b", Cloud(gives_addresses=True))
    order = await running(a, b)
    before = await parts(b, order)
    await go(a, b, order, SegmentGo(spec=larger(), promise=True))
    told = await info(a, order)
    assert (told.version, told.promised, told.refused) == (1, 2, None)
    assert await parts(b, order) == before
    await go(a, b, order, SegmentGo(spec=larger()))
    told = await info(a, order)
    assert (told.version, told.promised, told.refused) == (2, None, None)
    assert [(node.name, node.status) for node in told.nodes] == [(name, NodeStatus.RUNNING) for name in "abcd"]
    after = await parts(b, order)
    assert {part: after[part].id for part in before} == {part: lease.id for part, lease in before.items()}
    assert set(after) - set(before) == {"network/wire2", "node/c", "node/d"}
    scripts = [script for _place, script in b.hands.asked]
    assert len(scripts) == 2  # a and b are told of c and d, and nothing is started again
    assert all("10.1.2.2 c" in script and "STARTUP=''" in script for script in scripts)
    assert (await a.order(order.id)).state is OrderState.FULFILLED
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED)
    assert b.cloud.instances == {}
    assert b.cloud.misdeeds == []


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        (piece(("a", "b"), ("a", "c"), version=2), "a runs"),
        (larger(ssh_keys=[KEY]), "who may enter"),
        (larger().model_copy(update={"description": "no topdl"}), ""),
    ],
)
@in_virtual_time
async def test_what_would_change_what_runs_is_refused(world: Federation, wanted: SegmentSpec, word: str) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b)
    before = await parts(b, order)
    for promise in (True, False):
        await go(a, b, order, SegmentGo(spec=wanted, promise=promise))
        told = await info(a, order)
        assert (told.version, told.promised) == (1, None)
        assert told.refused is not None
        assert (told.refused.version, word in told.refused.reason) == (2, True)
    assert await parts(b, order) == before
    await go(a, b, order, SegmentGo(spec=larger(3), promise=True))
    assert (await info(a, order)).promised == 3


@in_virtual_time
async def test_a_new_node_that_cannot_be_made_costs_the_change_alone(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = await running(a, b)
    before = await parts(b, order)
    b.cloud.refusal, b.cloud.refused_kinds = NoQuota("That is too much."), frozenset({"compute"})
    await go(a, b, order, SegmentGo(spec=larger()))
    await asyncio.sleep(60)
    told = await info(a, order)
    assert (told.version, told.refused and told.refused.code) == (1, NoQuota.code)
    assert [node.name for node in told.nodes] == ["a", "b"]
    after = await parts(b, order)
    assert {part: lease.id for part, lease in after.items()} == {part: lease.id for part, lease in before.items()}
    assert len(b.cloud.instances) == 3
    b.cloud.refusal = None
    await go(a, b, order, SegmentGo(spec=larger(3)))
    await asyncio.sleep(60)
    assert (await a.order(order.id)).state is OrderState.FULFILLED
    assert set(await parts(b, order)) - set(before) == {"network/wire2", "node/c", "node/d"}
    assert b.cloud.misdeeds == []


@in_virtual_time
async def test_a_portal_comes_with_a_change_and_goes_with_one(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b", Cloud(gives_addresses=True))
    order = await running(a, b)
    crossed = FIRST.model_copy(update={"version": 2, "connectors": [connector("wire1", active=False)]})
    await go(a, b, order, SegmentGo(spec=crossed))
    assert [portal.connector for portal in (await info(a, order)).portals] == ["fartunnel0"]
    await go(a, b, order, SegmentGo(spec=crossed, connections=[Connection(connector="fartunnel0", peer_key=KEY)]))
    first = (await parts(b, order))["portal/fartunnel0"]
    wider = crossed.model_copy(update={"version": 3, "connectors": [connector("wire1", active=False, name="other")]})
    await go(a, b, order, SegmentGo(spec=wider, connections=[Connection(connector="other", peer_key=KEY)]))
    found = await parts(b, order)
    assert ("portal/other" in found, "portal/fartunnel0" in found) == (True, False)
    back = crossed.model_copy(update={"version": 4})
    await go(a, b, order, SegmentGo(spec=back, connections=[Connection(connector="fartunnel0", peer_key=KEY)]))
    assert (await parts(b, order))["portal/fartunnel0"].id != first.id
    assert len(b.cloud.instances) == 4
    assert b.cloud.misdeeds == []


@in_virtual_time
async def test_a_node_that_does_not_answer_is_told_later(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b", Cloud(gives_addresses=True))
    order = await running(a, b)
    lease = (await parts(b, order))["node/a"]
    assert lease.instance is not None
    assert isinstance(lease.spec, ComputeSpec)
    b.hands.silent = {str(lease.instance.public_address)}
    await go(a, b, order, SegmentGo(spec=larger()))
    await asyncio.sleep(60)
    assert (await info(a, order)).version == 1
    b.hands.silent = set()
    await asyncio.sleep(60)
    assert (await info(a, order)).version == 2
