"""A segment on real machines: three nodes in a row, whose ends reach one another through the one between."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation_member.middleware.containers import ContainersMiddleware
from federation_member.orders import leases
from federation_member.orders.model import Order, OrderState
from fedkit.protocol.lending import Instance, LeaseChange
from fedkit.protocol.segments import Route, SegmentGo
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


async def started(a: Member, order: Order) -> dict[str, Instance]:
    """Start a segment and wait until it runs; its nodes."""
    change = LeaseChange(lease_id=str(order.lease_id), segment=SegmentGo())
    await a.db.run(lambda tx: a.orders.engine.lenders.go(tx, a.peer, change))
    await eventually(lambda: _is(a, order, OrderState.FULFILLED), MAKING)
    instance = (await a.order(order.id)).instance
    assert instance is not None
    assert instance.segment is not None
    return {
        node.name: Instance(name=node.name, address=node.address, user=node.user, host_keys=node.host_keys)
        for node in instance.segment.nodes
    }


async def test_the_ends_reach_one_another_through_the_one_between(
    site: ContainersSite, tmp_path: Path, way: str
) -> None:
    async with Federation(tmp_path) as world:
        a = await world.add("a", lends=rule("all", "*/*/*", account="tests"), real=site.middleware)
        nodes = {"left": {"startup": ASK}}
        spec = piece(("left", "middle"), ("middle", "right"), nodes=nodes, routes=ROUTES, ssh_keys=[PUBLIC_KEY])
        (order,) = await a.orders.create(USER, ordered(spec), None)
        order = await a.until(order.id, OrderState.PENDING, lambda order: order.instance is not None)
        left = (await started(a, order))["left"]
        parts = await a.db.read(lambda conn: leases.children(conn, str(order.lease_id)))
        assert bool(parts) is (way == "embedded")
        await eventually(lambda: prints(left, "cat /tmp/reached", "reached"), MAKING)
        assert "right" in await run(left, "cat /etc/hosts")
        await a.orders.delete(USER, order.id)
        await eventually(lambda: _is(a, order, OrderState.DELETED), MAKING)
    assert await site.leftovers() == []
