"""Dead candidates, late winners, crashes, partitions: one machine or none, and both books right. All in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from federation_member.middleware.contract import NotAuthorised
from federation_member.orders.model import AttemptState, OrderState
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.memory_network import Deliveries, Packet

LARGE_ONLY = "vcpu >= 4"


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


async def borrower(world: Federation) -> Member:
    """A member that cannot make the machine itself."""
    return await world.add("a", Cloud(flavours=[SMALL]))


async def books_agree(*members: Member) -> None:
    """Every lender's book names exactly what its cloud holds."""
    for member in members:
        assert await member.book() == set(member.cloud.instances), member.name


@in_virtual_time
async def test_a_dead_candidate_is_asked_once_and_not_while_it_is_backed_off(world: Federation) -> None:
    a, dead, good = await borrower(world), await world.add("dead"), await world.add("good")
    world.network.cut(a.address, dead.address)
    orders = [(await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0] for _ in range(2)]
    for order in orders:
        assert (await a.until(order.id, OrderState.FULFILLED)).member == "good.test"
    asked = [(await a.orders.why(USER, order.id)).attempts for order in orders]
    assert sum(attempt.fedid == dead.key.fedid for attempts in asked for attempt in attempts) == 1
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    assert [x.member for x in (await a.orders.why(USER, order.id)).attempts] == ["good.test"]
    assert len(good.cloud.instances) == 3


@in_virtual_time
async def test_the_machine_of_a_late_winner_is_removed(world: Federation) -> None:
    a, slow = await borrower(world), await world.add("slow")
    answers = drop_answers_of(slow)
    world.network.faults = answers
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await world.settle(lambda: bool(slow.cloud.instances))
    good = await world.add("good")
    done = await a.until(order.id, OrderState.FULFILLED)
    assert done.member == "good.test"
    world.network.faults = lambda packet: [(0.0, packet)]
    await world.settle(lambda: not slow.cloud.instances)
    await world.settle(lambda: final(a, order.id))
    await books_agree(slow, good)


def drop_answers_of(member: Member) -> Callable[[Packet], Deliveries]:
    """It hears everything and can say nothing."""

    def faults(packet: Packet) -> Deliveries:
        return [] if packet.source == member.address else [(0.0, packet)]

    return faults


@in_virtual_time
async def test_a_lost_answer_costs_no_machine_that_its_lender_spoke_of(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    world.network.faults = lambda packet: [] if packet.reply and packet.source == b.address else [(0.0, packet)]
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    running = await a.until(order.id, OrderState.FULFILLED)  # by what the lender reports of itself
    await world.settle(lambda: nothing_awaited(a))
    world.network.faults = lambda packet: [(0.0, packet)]
    now = await a.order(order.id)
    assert (now.state, now.lease_id) == (OrderState.FULFILLED, running.lease_id)
    await books_agree(a, b)


async def nothing_awaited(member: Member) -> bool:
    """Whether a member waits for no answer."""
    return (await member.mesh.status()).waiting == 0


async def final(member: Member, order_id: str) -> bool:
    """Whether all attempts but the present one are over."""
    why = await member.orders.why(USER, order_id)
    over = {AttemptState.RELEASED, AttemptState.REFUSED, AttemptState.FAILED}
    return all(attempt.state in over for attempt in why.attempts if attempt.lease_id != why.order.lease_id)


@in_virtual_time
async def test_a_lender_that_is_cut_off_keeps_no_machine_after_the_lease(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, lease_seconds=60), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    world.network.cut(a.address, b.address)
    world.advance(61)
    await world.settle(lambda: not b.cloud.instances)
    world.advance(60)
    closed = await a.until(order.id, OrderState.CLOSED)
    assert "silent since" in closed.reason
    world.network.heal(a.address, b.address)
    await books_agree(a, b)


@in_virtual_time
async def test_leases_are_renewed_while_both_are_there(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, lease_seconds=60), None))[0]
    first = await a.until(order.id, OrderState.FULFILLED)
    own = (await a.orders.create(USER, machine(lease_seconds=60), None))[0]
    await a.until(own.id, OrderState.FULFILLED)
    expires = first.lease_expires
    for _ in range(6):
        world.advance(25)
        order = await a.until(order.id, OrderState.FULFILLED, lambda o, old=expires: o.lease_expires != old)  # type: ignore[misc]
        expires = order.lease_expires
    assert len(b.cloud.made) == len(a.cloud.made) == 1
    assert (await a.order(own.id)).state is OrderState.FULFILLED


@in_virtual_time
async def test_deleting_waits_for_a_lender_that_is_away(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    await b.kill()
    deleting = await a.orders.delete(USER, order.id)
    assert "waits for b.test to confirm" in deleting.reason
    await b.start()
    await a.until(order.id, OrderState.DELETED)
    assert not b.cloud.instances


@in_virtual_time
async def test_what_the_book_does_not_hold_is_deleted_at_start(world: Federation) -> None:
    a = await world.add("a")
    order = (await a.orders.create(USER, machine(), None))[0]
    running = await a.until(order.id, OrderState.FULFILLED)
    await a.kill()
    a.cloud.instances["orphan"] = a.cloud.instances[str(running.lease_id)]
    a.cloud.made.append("orphan")
    await a.start()
    await world.settle(lambda: "orphan" not in a.cloud.instances)
    await books_agree(a)
    assert (await a.order(order.id)).state is OrderState.FULFILLED


@in_virtual_time
async def test_what_the_book_does_not_hold_is_looked_for_every_hour(world: Federation) -> None:
    a = await world.add("a")
    order = (await a.orders.create(USER, machine(), None))[0]
    running = await a.until(order.id, OrderState.FULFILLED)
    a.cloud.instances["orphan"] = a.cloud.instances[str(running.lease_id)]  # a call that was carried out very late
    a.cloud.made.append("orphan")
    world.advance(3601)
    await world.settle(lambda: "orphan" not in a.cloud.instances)


@in_virtual_time
async def test_a_lender_that_is_not_let_look_at_what_runs_says_so_and_ends_nothing(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    running = await a.until(order.id, OrderState.FULFILLED)
    b.cloud.look_refusal = NotAuthorised("The password has expired.")
    b.cloud.listener(str(running.lease_id))

    async def told(code: str) -> bool:
        return (await a.order(order.id)).code == code

    await world.settle(lambda: told("middleware.not_authorised"))
    assert "The password has expired." in (await a.order(order.id)).reason
    world.advance(30)
    await world.settle(lambda: told("middleware.not_authorised"))
    assert (await a.order(order.id)).state is OrderState.FULFILLED
    b.cloud.look_refusal = None
    world.advance(30)
    await world.settle(lambda: told(""))
    assert (await a.order(order.id)).state is OrderState.FULFILLED
    assert (await a.order(order.id)).reason == "runs at b.test"


@in_virtual_time
async def test_what_vanished_while_the_lender_was_down_is_noticed(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    await b.kill()
    b.cloud.instances.clear()
    await b.start()
    assert (await a.until(order.id, OrderState.CLOSED)).code == "lease.lost"


@in_virtual_time
async def test_a_cloud_that_is_away_for_a_while_costs_nothing_but_time(world: Federation) -> None:
    a = await world.add("a", Cloud(down=True))
    order = (await a.orders.create(USER, machine(), None))[0]
    await a.until(order.id, OrderState.PENDING)
    a.cloud.down = False
    await a.until(order.id, OrderState.FULFILLED)
    a.cloud.down = True
    await a.orders.delete(USER, order.id)
    await world.settle(lambda: waits_for_deletion(a, order.id))
    a.cloud.down = False
    await a.until(order.id, OrderState.DELETED)
    assert not a.cloud.instances


async def waits_for_deletion(member: Member, order_id: str) -> bool:
    """Whether a deletion is under way."""
    return (await member.order(order_id)).state is OrderState.DELETING


@pytest.mark.parametrize("victim", ["a", "b"])
@pytest.mark.parametrize("packets", [0, 1, 2, 3, 5, 9])
@in_virtual_time
async def test_killed_at_any_step_the_order_ends_with_one_machine(world: Federation, victim: str, packets: int) -> None:
    """Either side dies when the n-th packet is on its way, and begins again."""
    a, b = await borrower(world), await world.add("b")
    dying = {"a": a, "b": b}[victim]
    now = asyncio.Event()

    def count(packet: Packet) -> Deliveries:
        if len(world.network.packets) >= packets:
            now.set()
        return [(0.0, packet)]

    world.network.faults = count
    if packets == 0:
        now.set()
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    try:
        async with asyncio.timeout(0.3):
            await now.wait()
    except TimeoutError:
        pass  # the order was fulfilled with fewer packets: then it is killed when it runs
    await dying.kill()
    await dying.start()
    done = await a.until(order.id, OrderState.FULFILLED)
    assert list(b.cloud.instances) == [done.lease_id]
    await world.settle(lambda: final(a, order.id))
    await books_agree(a, b)
    deleting = await a.orders.delete(USER, order.id)
    await dying.kill()
    await dying.start()
    await a.until(deleting.id, OrderState.DELETED)
    await world.settle(lambda: not b.cloud.instances)
    await books_agree(a, b)


@pytest.mark.parametrize("packets", range(0, 12, 2))
@in_virtual_time
async def test_cut_at_any_step_the_order_ends_with_one_machine(world: Federation, packets: int) -> None:
    a, b = await borrower(world), await world.add("b")

    def cut(packet: Packet) -> Deliveries:
        return [(0.0, packet)] if len(world.network.packets) < packets else []

    world.network.packets.clear()
    world.network.faults = cut
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await asyncio.sleep(0.2)
    world.network.faults = lambda packet: [(0.0, packet)]
    done = await a.until(order.id, OrderState.FULFILLED)
    await world.settle(lambda: list(b.cloud.instances) == [done.lease_id])
    await world.settle(lambda: final(a, order.id))
    await books_agree(a, b)


@in_virtual_time
async def test_a_bad_network_loses_and_doubles_nothing(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    chance = random.Random(7)

    def bad(packet: Packet) -> Deliveries:
        return [(chance.uniform(0, 0.05), packet) for _ in range(chance.choice([0, *[1] * 20, 2, 2, 2]))]

    world.network.faults = bad
    orders = await a.orders.create(USER, machine(requirements=LARGE_ONLY, count=5), None)
    leases = {str((await a.until(order.id, OrderState.FULFILLED)).lease_id) for order in orders}
    for order in orders:
        await world.settle(lambda order=order: final(a, order.id))  # type: ignore[misc]
    await world.settle(lambda: set(b.cloud.instances) == leases)
    await books_agree(a, b)
