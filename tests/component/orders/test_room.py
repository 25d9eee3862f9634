"""A lender that has room again says so to those it turned away, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from federation_member.errors import NotAllowed
from federation_member.middleware.contract import NoCapacity
from federation_member.orders.model import OrderState
from fedkit.identity import jws
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.policies import rule
from tests.support.virtual_time import clock

LARGE_ONLY = "vcpu >= 4"
LONG = 2000.0  # seconds after which an order that waits asks every ten minutes
SOON = 5.0  # seconds


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


async def waiting(member: Member) -> str:
    """An order that has waited for long."""
    order = (await member.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await asyncio.sleep(LONG)
    assert (await member.order(order.id)).state is OrderState.OPEN
    return order.id


async def runs_soon(member: Member, order_id: str) -> None:
    """It runs long before it would have asked again by itself."""
    begin = clock()
    await member.until(order_id, OrderState.FULFILLED)
    assert (clock() - begin).total_seconds() < SOON


@in_virtual_time
async def test_who_was_over_the_count_of_a_rule_hears_of_room(world: Federation) -> None:
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b", lends=rule("one", "*/*/*", count=1))
    first = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(first.id, OrderState.FULFILLED)
    second = await waiting(a)
    assert (await a.order(second)).code == NotAllowed.code
    await a.orders.delete(USER, first.id)
    await runs_soon(a, second)
    assert len(b.cloud.instances) == 1


@in_virtual_time
async def test_who_found_no_capacity_hears_of_room(world: Federation) -> None:
    """Also a user of the lender itself."""
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    first = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(first.id, OrderState.FULFILLED)
    b.cloud.refusal = NoCapacity("Everything is taken.")
    own, others = await waiting(b), await waiting(a)
    await a.orders.delete(USER, first.id)
    b.cloud.refusal = None
    await runs_soon(b, own)
    await runs_soon(a, others)


@in_virtual_time
async def test_a_failure_that_frees_nothing_is_no_room(world: Federation) -> None:
    """Else two orders that cannot be fulfilled would wake one another for ever."""
    a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
    b.cloud.refusal = NoCapacity("Everything is taken.")
    for _ in range(2):
        await waiting(a)
    assert not told(world)


def told(world: Federation) -> int:
    """How many hints have crossed the network."""
    requests = (packet for packet in world.network.packets if not packet.reply)
    return sum(b'"lease.room"' in jws.decode(packet.text.split(".")[1]) for packet in requests)
