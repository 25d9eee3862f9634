"""A segment on real machines: three nodes in a row, whose ends reach one another through the one between."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation_member.middleware.containers import ContainersMiddleware
from federation_member.orders import leases
from federation_member.orders.model import Order, OrderState
from fedkit.protocol.lending import Instance, LeaseChange
from fedkit.protocol.segments import NodeStatus, Route, SegmentGo, SegmentInfo
from tests.component.middleware.contract import PUBLIC_KEY, eventually
from tests.component.middleware.machines import prints, run
from tests.component.middleware.place import ContainersSite, lacks_to_carry
from tests.support.federation import USER, Federation, Member
from tests.support.policies import rule
from tests.support.segments import ordered, piece

MAKING = 120.0  # seconds that all of it may take on a busy machine
ROUTES = {
    "left": [Route(destination="10.1.2.0/24", via="10.1.1.3")],
    "right": [Route(destination="10.1.1.0/24", via="10.1.2.2")],
}
ASK = "until ping -c 1 -w 1 right; do sleep 1; done; echo reached >/tmp/reached"


@pytest.fixture(params=["hosted", "embedded"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the segment is made: by the middleware as a whole, or by leases of machines and networks."""
    if (lacking := lacks_to_carry()) is not None:
        pytest.skip(lacking)
    if request.param == "embedded":
        monkeypatch.setattr(ContainersMiddleware, "hosts_segments", lambda _self: False)
    return str(request.param)


async def _is(member: Member, order: Order, state: OrderState) -> bool:
    return (await member.order(order.id)).state is state


async def _is_like(member: Member, order: Order, version: int) -> bool:
    return (await info_of(member, order)).version == version


async def told(a: Member, order: Order, wanted: SegmentGo) -> None:
    """Say how a segment is to be."""
    change = LeaseChange(lease_id=str(order.lease_id), segment=wanted)
    await a.db.run(lambda tx: a.orders.engine.lenders.go(tx, a.peer, change))


async def started(a: Member, order: Order) -> dict[str, Instance]:
    """Start a segment and wait until it runs; its nodes."""
    await told(a, order, SegmentGo())
    await eventually(lambda: _is(a, order, OrderState.FULFILLED), MAKING)
    return await nodes_of(a, order)


async def info_of(a: Member, order: Order) -> SegmentInfo:
    """What is known of a segment."""
    instance = (await a.order(order.id)).instance
    assert instance is not None
    assert instance.segment is not None
    return instance.segment


async def nodes_of(a: Member, order: Order) -> dict[str, Instance]:
    """Its nodes, by name."""
    return {
        node.name: Instance(name=node.name, address=node.address, user=node.user, host_keys=node.host_keys)
        for node in (await info_of(a, order)).nodes
    }


async def test_the_ends_reach_one_another_through_the_one_between(
    site: ContainersSite, tmp_path: Path, way: str
) -> None:
    async with Federation(tmp_path) as world:
        a = await world.add("a", lends=rule("all", "*/*/*", account="tests"), real=site.middleware)
        more = {"nodes": {"left": {"startup": ASK}}, "ssh_keys": [PUBLIC_KEY]}
        spec = piece(("left", "middle"), ("middle", "right"), routes=ROUTES, **more)
        (order,) = await a.orders.create(USER, ordered(spec), None)
        order = await a.until(order.id, OrderState.PENDING, lambda order: order.instance is not None)
        left = (await started(a, order))["left"]
        parts = await a.db.read(lambda conn: leases.children(conn, str(order.lease_id)))
        assert bool(parts) is (way == "embedded")
        await eventually(lambda: prints(left, "cat /tmp/reached", "reached"), MAKING)
        assert "right" in await run(left, "cat /etc/hosts")
        await run(left, "touch /tmp/stays")
        routes = ROUTES | {"beyond": ROUTES["right"]}
        larger = piece(("left", "middle"), ("middle", "right", "beyond"), routes=routes, version=2, **more)
        await told(a, order, SegmentGo(spec=larger))
        await eventually(lambda: _is_like(a, order, 2), MAKING)
        assert (await nodes_of(a, order))["left"] == left
        look = "ls /tmp/stays; ping -c 1 -w 2 beyond >/dev/null && echo there"
        await eventually(lambda: prints(left, look, "/tmp/stays\nthere", user="root"), MAKING)
        beyond = (await nodes_of(a, order))["beyond"]
        await eventually(lambda: prints(beyond, "ping -c 1 -w 2 left >/dev/null; echo $?", "0", user="root"), MAKING)
        await a.orders.delete(USER, order.id)
        await eventually(lambda: _is(a, order, OrderState.DELETED), MAKING)
    assert await site.leftovers() == []


@pytest.mark.parametrize(("action", "state"), [("fatal", OrderState.OPEN), ("nonfatal", OrderState.FULFILLED)])
async def test_a_node_that_cannot_be_as_described_fails_by_its_action(
    site: ContainersSite, tmp_path: Path, action: str, state: OrderState
) -> None:
    if (lacking := lacks_to_carry()) is not None:
        pytest.skip(lacking)
    nowhere = {"left": [Route(destination="10.9.0.0/16", via="10.99.0.1")]}
    spec = piece(("left", "right"), nodes={"left": {"failureaction": action, "startup": "true"}}, routes=nowhere)
    async with Federation(tmp_path) as world:
        a = await world.add("a", lends=rule("all", "*/*/*", account="tests"), real=site.middleware)
        (order,) = await a.orders.create(USER, ordered(spec), None)
        order = await a.until(order.id, OrderState.PENDING, lambda order: order.instance is not None)
        change = LeaseChange(lease_id=str(order.lease_id), segment=SegmentGo())
        await a.db.run(lambda tx: a.orders.engine.lenders.go(tx, a.peer, change))
        await eventually(lambda: _is(a, order, state), MAKING)
        if state is OrderState.FULFILLED:
            instance = (await a.order(order.id)).instance
            assert instance is not None
            assert instance.segment is not None
            nodes = {node.name: node for node in instance.segment.nodes}
            assert nodes["left"].status is NodeStatus.FAILED
            assert "the route to 10.9.0.0 via 10.99.0.1" in nodes["left"].reason
            assert nodes["right"].status is NodeStatus.RUNNING
        await a.orders.delete(USER, order.id)
        await eventually(lambda: _is(a, order, OrderState.DELETED), MAKING)
        await eventually(lambda: not list((site.state / "instances").iterdir()), MAKING)
    assert await site.leftovers() == []
