"""What uses something, and what is used, when members die, vanish and lose things. All in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from federation_member.orders.model import NewOrder, Order, OrderState, OrderType
from fedkit.protocol.lending import LeaseState
from tests.support.federation import USER, Federation, Member, attachment, in_virtual_time, machine, public_ip, volume
from tests.support.virtual_time import Crash, InlineDatabase


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


async def have(member: Member, new: NewOrder) -> Order:
    """Order one and wait until it runs."""
    (order,) = await member.orders.create(USER, new, None)
    return await member.until(order.id, OrderState.FULFILLED)


async def machine_with_all(a: Member, kind: OrderType = OrderType.ONE_TIME) -> list[Order]:
    """At `b`: a volume, a machine, the one attached to the other, and a public address."""
    disk = await have(a, volume(location="b.test", type=kind))
    vm = await have(a, machine(location="b.test", type=kind))
    return [disk, vm, await have(a, attachment(vm.id, disk.id, type=kind)), await have(a, public_ip(vm.id, type=kind))]


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


@pytest.mark.parametrize("commits", range(0, 30, 3))
@in_virtual_time
async def test_leases_end_in_order_over_crashes_though_their_borrower_vanished(world: Federation, commits: int) -> None:
    a, b = await world.add("a"), await world.add("b")
    await machine_with_all(a)
    await a.kill()
    die_after(b, commits)
    await asyncio.sleep(700)
    await b.kill()
    await b.start()
    await world.settle(lambda: not b.cloud.instances)
    assert b.cloud.misdeeds == []
    await asyncio.sleep(2 * 86400)
    assert await b.book() == set()


@pytest.mark.parametrize("used", [0, 1])
@in_virtual_time
async def test_a_used_lease_that_expires_ends_its_users_first(world: Federation, used: int) -> None:
    a, b = await world.add("a"), await world.add("b")
    orders = await machine_with_all(a)
    world.network.cut(a.address, b.address)
    lease = await b.lease(str(orders[used].lease_id))
    b.cloud.gate.clear()
    await asyncio.sleep((lease.expires - world.clock()).total_seconds() + 1)
    attached = await b.lease(str(orders[2].lease_id))
    assert attached.state in (LeaseState.FAILING, LeaseState.RELEASING)
    b.cloud.gate.set()
    await asyncio.sleep(10)
    assert not b.cloud.instances
    assert b.cloud.misdeeds == []


@in_virtual_time
async def test_a_volume_that_its_lender_lost_takes_its_attachment_along(world: Federation) -> None:
    a, b = await world.add("a"), await world.add("b")
    disk, vm, attached, address = await machine_with_all(a)
    b.cloud.lose(str(disk.lease_id))
    closed = await a.until(attached.id, OrderState.CLOSED)
    assert (closed.code, "the volume that it uses ends" in closed.reason) == ("lease.used_ended", True)
    await a.until(disk.id, OrderState.CLOSED)
    await asyncio.sleep(3600)
    assert set(b.cloud.instances) == {vm.lease_id, address.lease_id}
    assert b.cloud.misdeeds == []


@pytest.mark.parametrize("commits", range(0, 40, 4))
@pytest.mark.parametrize("who", ["a", "b"])
@in_virtual_time
async def test_persistent_orders_are_whole_again_after_any_crash(world: Federation, commits: int, who: str) -> None:
    a, b = await world.add("a"), await world.add("b")
    orders = await machine_with_all(a, OrderType.PERSISTENT)
    victim = a if who == "a" else b
    die_after(victim, commits)
    with suppress(Crash):
        b.cloud.lose(str(orders[1].lease_id))
        await asyncio.sleep(5)
    await victim.kill()
    await victim.start()
    await asyncio.sleep(3600)
    now = [await a.until(order.id, OrderState.FULFILLED) for order in orders]
    assert set(b.cloud.instances) == {order.lease_id for order in now} == await b.book()
    assert b.cloud.instances[str(now[2].lease_id)].spec.machine == now[1].lease_id  # type: ignore[union-attr]
    assert b.cloud.misdeeds == []
