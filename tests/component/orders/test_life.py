"""The life of an order: who is asked, what becomes of it, how it ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from federation_member.errors import IdempotencyConflict, InUse, UnknownNetwork, UnknownOrder, UnknownRequirement
from federation_member.middleware.contract import NoCapacity
from federation_member.orders.leases import held
from federation_member.orders.model import AttemptState, OrderState, OrderType, User
from tests.support.fake_middleware import LARGE, SMALL, Cloud
from tests.support.federation import USER, Federation, Member, machine, network
from tests.support.policies import NOTHING, rule

LARGE_ONLY = "vcpu >= 4"


@pytest.fixture
def world(world_on_both: Federation) -> Federation:
    """Everything here is the same on both databases."""
    return world_on_both


async def test_own_middleware_comes_first(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = (await a.orders.create(USER, machine(), None))[0]
    order = await a.until(order.id, OrderState.FULFILLED)
    assert order.member == "a.test"
    assert list(a.cloud.instances) == [order.lease_id]
    assert not b.cloud.instances
    assert order.instance is not None
    assert order.instance.flavour == SMALL  # the smallest that fits


async def test_machine_comes_up_at_the_member_that_meets_the_requirement(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements="Glue2vCPU >= 2 && Glue2RAM >= 1024"), None))[0]
    order = await a.until(order.id, OrderState.FULFILLED)
    assert order.member == "b.test"
    assert order.instance is not None
    assert order.instance.flavour == LARGE
    assert await b.book() == set(b.cloud.instances) == {order.lease_id}


async def test_history_gives_a_reason_at_every_step(world: Federation) -> None:
    a, _b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    await a.orders.delete(USER, order.id)
    await a.until(order.id, OrderState.DELETED)
    events = (await a.orders.why(USER, order.id)).events
    assert [(e.state, e.reason) for e in events][:4] == [
        (OrderState.OPEN, "looks for a lender"),
        (OrderState.OPEN, "asks b.test"),
        (OrderState.PENDING, "b.test accepted and is making it"),
        (OrderState.FULFILLED, "runs at b.test"),
    ]
    assert events[-1].state is OrderState.DELETED
    assert all(event.reason for event in events)


async def test_falls_through_to_the_next_candidate(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    full = await world.add("full", Cloud(refusal=NoCapacity("no valid host")))
    closed = await world.add("closed", lends=rule("nobody", "0" * 40 + "/*/*"))
    good = await world.add("good")
    placed = [(await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0] for _ in range(3)]
    for order in placed:
        done = await a.until(order.id, OrderState.FULFILLED)
        assert done.member == "good.test"
    assert len(good.cloud.instances) == 3
    assert not full.cloud.instances
    assert not closed.cloud.instances
    await world.settle(lambda: _ended(full))


async def _ended(member: Member) -> bool:
    return not await member.book()


async def test_when_all_refuse_the_reason_names_each(world: Federation) -> None:
    a = await world.add("a", Cloud(refusal=NoCapacity("no room at home")))
    b = await world.add("b", lends=NOTHING)
    order = (await a.orders.create(USER, machine(), None))[0]
    order = await a.until(order.id, OrderState.OPEN, lambda o: "b.test" in o.reason and o.lease_id is None)
    assert "a.test: no room at home" in order.reason
    assert "nothing is lent here" in order.reason
    why = await a.orders.why(USER, order.id)
    assert {attempt.code for attempt in why.attempts} == {"middleware.no_capacity", "member.not_allowed"}
    assert why.next_try is not None
    a.cloud.refusal = None
    world.advance((why.next_try - world.clock()).total_seconds() + 1)
    assert (await a.until(order.id, OrderState.FULFILLED)).member == "a.test"
    assert not b.cloud.instances


async def test_an_impossible_requirement_is_told_at_once_and_waits_for_somebody(world: Federation) -> None:
    a = await world.add("a")
    order = (await a.orders.create(USER, machine(requirements="vcpu >= 1 && ram_mb >= 64000"), None))[0]
    assert order.state is OrderState.OPEN
    assert order.reason == "nothing at any known member meets: ram_mb >= 64000"
    big = LARGE.model_copy(update={"name": "huge", "ram_mb": 128000})
    await world.add("b", Cloud(flavours=[big]))
    assert (await a.until(order.id, OrderState.FULFILLED)).member == "b.test"


async def test_location_names_the_only_member_to_ask(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    order = (await a.orders.create(USER, machine(location="b.test"), None))[0]
    assert (await a.until(order.id, OrderState.FULFILLED)).member == "b.test"
    order = (await a.orders.create(USER, machine(location="bb.test"), None))[0]
    assert order.reason == "no member bb.test is known; did you mean b.test?"
    order = (await a.orders.create(USER, machine(image="debiam"), None))[0]
    assert order.reason == "the image debiam is not offered by any known member; did you mean debian?"
    assert len(b.cloud.instances) == 1


async def test_unknown_names_are_refused_with_the_nearest(world: Federation) -> None:
    a = await world.add("a")
    with pytest.raises(UnknownRequirement, match="did you mean vcpu"):
        await a.orders.create(USER, machine(requirements="vcpus > 1"), None)


async def test_same_idempotency_key_gives_the_same_orders(world: Federation) -> None:
    a = await world.add("a")
    first = await a.orders.create(USER, machine(count=3), "key")
    again = await a.orders.create(USER, machine(count=3), "key")
    assert [order.id for order in first] == [order.id for order in again]
    assert len({order.batch for order in first}) == 1
    with pytest.raises(IdempotencyConflict):
        await a.orders.create(USER, machine(count=2), "key")
    others = await a.orders.create(User("project", "bob"), machine(count=3), "key")
    assert {order.id for order in others}.isdisjoint(order.id for order in first)


async def test_deleting_ends_when_the_lender_confirms(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    b.cloud.gate.clear()
    deleting = await a.orders.delete(USER, order.id)
    assert deleting.state is OrderState.DELETING
    assert deleting.reason.startswith("waits for b.test to confirm (its lease ends by itself at ")
    await world.settle(lambda: _is_releasing(b))
    assert (await a.order(order.id)).state is OrderState.DELETING
    assert b.cloud.instances
    b.cloud.gate.set()
    await a.until(order.id, OrderState.DELETED)
    assert not b.cloud.instances
    assert not await b.book()


async def _is_releasing(member: Member) -> bool:
    return "releasing" in {state.value for state in (await member.db.read(held)).values()}


async def test_one_time_orders_end_with_their_instance_and_persistent_ones_begin_again(world: Federation) -> None:
    a = await world.add("a")
    once = (await a.orders.create(USER, machine(), None))[0]
    again = (await a.orders.create(USER, machine(type=OrderType.PERSISTENT), None))[0]
    for order in (once, again):
        running = await a.until(order.id, OrderState.FULFILLED)
        assert running.lease_id is not None
        a.cloud.lose(running.lease_id)
    closed = await a.until(once.id, OrderState.CLOSED)
    assert closed.code == "lease.lost"
    assert "the instance is gone at its lender" in closed.reason
    await world.settle(lambda: len(a.cloud.instances) == 1)
    await a.until(again.id, OrderState.FULFILLED)
    assert len(a.cloud.made) == 3


async def test_valid_from_and_until_are_kept(world: Federation) -> None:
    a = await world.add("a")
    begin = world.clock() + timedelta(hours=1)
    order = (await a.orders.create(USER, machine(valid_from=begin, valid_until=begin + timedelta(hours=1)), None))[0]
    assert order.reason.startswith("waits for its validity, from ")
    assert not a.cloud.instances
    world.advance(3601)
    await a.until(order.id, OrderState.FULFILLED)
    world.advance(3600)
    closed = await a.until(order.id, OrderState.CLOSED)
    assert closed.code == "orders.validity_ended"
    await world.settle(lambda: not a.cloud.instances)


async def test_a_slow_start_is_followed_until_it_runs(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b", Cloud(slow_start=True))
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    pending = await a.until(order.id, OrderState.PENDING)
    await world.settle(lambda: bool(b.cloud.instances))
    assert pending.member == "b.test"
    b.cloud.finish(str(pending.lease_id))
    await a.until(order.id, OrderState.FULFILLED)


async def test_machines_join_networks_of_one_lender(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    lan = (await a.orders.create(USER, network(location="b.test"), None))[0]
    joined = (await a.orders.create(USER, machine(networks=[lan.id]), None))[0]
    lan = await a.until(lan.id, OrderState.FULFILLED)
    joined = await a.until(joined.id, OrderState.FULFILLED)
    assert joined.member == lan.member == "b.test"
    request = b.cloud.instances[str(joined.lease_id)]
    assert request.networks == (lan.lease_id,)  # type: ignore[union-attr]
    with pytest.raises(InUse):
        await a.orders.delete(USER, lan.id)
    await a.orders.delete(USER, joined.id)
    await a.orders.delete(USER, lan.id)
    await a.until(lan.id, OrderState.DELETED)
    assert not b.cloud.instances
    with pytest.raises(UnknownNetwork):
        await a.orders.create(USER, machine(networks=[lan.id]), None)


async def test_what_belongs_to_others_does_not_exist(world: Federation) -> None:
    a = await world.add("a")
    order = (await a.orders.create(USER, machine(), None))[0]
    eve = User("project", "eve")
    for call in (a.orders.get, a.orders.delete, a.orders.why):
        with pytest.raises(UnknownOrder):
            await call(eve, order.id)
    assert await a.orders.events(eve, 0, 10) == []
    assert len(await a.orders.events(USER, 0, 10)) >= 1


async def test_pages_hold_every_order_once(world: Federation) -> None:
    a = await world.add("a")
    made = {order.id for order in await a.orders.create(USER, machine(count=7), None)}
    made |= {(await a.orders.create(USER, machine(), None))[0].id for _ in range(4)}
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page, cursor = await a.orders.page(USER, state=None, kind=None, batch=None, after=cursor, limit=3)
        seen += [order.id for order in page]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 11
    assert set(seen) == made


async def test_refused_attempts_hold_nothing(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    await world.add("b", lends=rule("one", "*/*/*", count=1))
    first = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(first.id, OrderState.FULFILLED)
    second = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(second.id, OrderState.OPEN, lambda o: o.code == "member.not_allowed")
    why = await a.orders.why(USER, second.id)
    assert [attempt.state for attempt in why.attempts] == [AttemptState.REFUSED]
    await a.orders.delete(USER, second.id)
    await a.until(second.id, OrderState.DELETED)
