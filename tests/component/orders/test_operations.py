"""Stopping, starting, rules, consoles and quotas, at home and away, through crashes, lost answers and clouds that hang."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from federation_member.directory.errors import UnknownMember
from federation_member.errors import Cannot, NotRunning, NotYet, UnknownOrder
from federation_member.middleware.contract import NoQuota, Quota, UnusableSpec
from federation_member.orders.keeper import CALL_LIMIT, LONGEST_PAUSE
from federation_member.orders.model import Order, OrderState, User
from federation_member.orders.operations import OrderChange, QuotaAt
from fedkit.errors import FedError
from fedkit.protocol.lending import CONSOLE_LIMIT, Amounts, LeaseConsole, Power, SecurityRule
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine, network
from tests.support.memory_network import Deliveries, Packet
from tests.support.policies import rule

STOP, START, PAUSE = (OrderChange(power=power) for power in (Power.STOPPED, Power.RUNNING, Power.PAUSED))
SSH = SecurityRule(protocol="tcp", ports=(22, 22), cidr="192.0.2.0/24")
BIG = "vcpu >= 4"
NOBODY = User("project", "bob")


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation."""
    return Federation(tmp_path, virtual=True)


async def both(world: Federation) -> tuple[Member, Member]:
    """A borrower with small machines of its own, and a lender with large ones."""
    return await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")


async def large(a: Member, **changes: object) -> Order:
    """A machine that runs at the lender."""
    order = (await a.orders.create(USER, machine(requirements=BIG, **changes), None))[0]
    return await a.until(order.id, OrderState.FULFILLED)


def power_of(order: Order) -> Power | None:
    """How the order's machine is."""
    return order.instance.power if order.instance else None


# Power


@in_virtual_time
async def test_a_machine_is_stopped_paused_and_started_at_another_member(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    for wanted in (STOP, START, PAUSE, START):
        changed = await a.orders.modify(USER, order.id, wanted)
        assert power_of(changed) is wanted.power
        assert not changed.wishes
        assert changed.state is OrderState.FULFILLED
    assert "is stopped at b.test" in [event.reason for event in (await a.orders.why(USER, order.id)).events]
    assert [call.split()[1] for call in b.cloud.calls] == ["stopped", "running", "paused", "running"]
    assert b.cloud.made == [order.lease_id]


@in_virtual_time
async def test_at_home_it_is_the_same_without_the_mesh(world: Federation) -> None:
    a = await world.add("a")
    order = (await a.orders.create(USER, machine(), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    assert power_of(await a.orders.modify(USER, order.id, STOP)) is Power.STOPPED
    assert power_of(await a.orders.modify(USER, order.id, STOP)) is Power.STOPPED
    assert power_of(await a.orders.modify(USER, order.id, START)) is Power.RUNNING


@in_virtual_time
async def test_what_only_begins_is_asked_about_until_it_is_so(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    b.cloud.slow_power = True
    changed = await a.orders.modify(USER, order.id, STOP)
    assert (power_of(changed), changed.wishes.power) == (Power.RUNNING, Power.STOPPED)
    assert changed.reason == "runs, is being stopped at b.test"
    assert changed.lease_id is not None
    b.cloud.settle_power(changed.lease_id)
    done = await a.until(order.id, OrderState.FULFILLED, lambda order: not order.wishes)
    assert power_of(done) is Power.STOPPED


@in_virtual_time
async def test_a_stopped_machine_lives_on_through_renewals_and_restarts_of_both(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a, lease_seconds=60)
    await a.orders.modify(USER, order.id, STOP)
    for member in (a, b):
        await member.kill()
        await member.start()
        await asyncio.sleep(120)  # twice its lease
    now = await a.order(order.id)
    assert (now.state, power_of(now), now.lease_id) == (OrderState.FULFILLED, Power.STOPPED, order.lease_id)


@in_virtual_time
async def test_a_machine_that_stops_by_itself_is_told_and_left_so(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    assert order.lease_id is not None
    b.cloud.become(order.lease_id, Power.STOPPED)
    await a.until(order.id, OrderState.FULFILLED, lambda order: power_of(order) is Power.STOPPED)
    await asyncio.sleep(300)
    assert not b.cloud.calls
    b.cloud.become(order.lease_id, Power.RUNNING)
    await a.until(order.id, OrderState.FULFILLED, lambda order: power_of(order) is Power.RUNNING)


@in_virtual_time
async def test_a_definite_refusal_is_told_in_the_lenders_words_and_the_wish_is_gone(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    b.cloud.wish_refusal = UnusableSpec("A stop would lose the disk; pause it.")
    with pytest.raises(FedError) as refused:
        await a.orders.modify(USER, order.id, STOP)
    assert refused.value.code == "middleware.unusable_spec"
    assert "cannot be stopped: A stop would lose the disk; pause it." in refused.value.message
    now = await a.order(order.id)
    assert (now.state, now.code, bool(now.wishes)) == (OrderState.FULFILLED, "middleware.unusable_spec", False)
    b.cloud.wish_refusal = None
    changed = await a.orders.modify(USER, order.id, PAUSE)
    assert (power_of(changed), changed.code) == (Power.PAUSED, "")


@in_virtual_time
async def test_the_wish_survives_the_lenders_death_and_renewals(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    assert order.lease_id is not None
    b.cloud.gate.clear()
    waiting = asyncio.create_task(a.orders.modify(USER, order.id, STOP))
    await world.settle(lambda: order.lease_id in b.middleware.busy)
    changed = await waiting
    assert changed.wishes.power is Power.STOPPED
    await asyncio.sleep(30)
    await b.kill()
    b.cloud.gate.set()
    await b.start()
    done = await a.until(order.id, OrderState.FULFILLED, lambda order: not order.wishes)
    assert power_of(done) is Power.STOPPED


@in_virtual_time
async def test_a_cloud_that_is_away_is_asked_again(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a, lease_seconds=60)
    b.cloud.down = True
    changed = await a.orders.modify(USER, order.id, STOP)
    assert changed.wishes.power is Power.STOPPED
    await asyncio.sleep(120)  # over two leases, renewals included
    b.cloud.down = False
    done = await a.until(order.id, OrderState.FULFILLED, lambda order: not order.wishes)
    assert power_of(done) is Power.STOPPED


@in_virtual_time
async def test_a_wish_that_is_changed_while_it_is_being_made_true_ends_as_the_last_one(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    b.cloud.gate.clear()
    first = asyncio.create_task(a.orders.modify(USER, order.id, STOP))
    await world.settle(lambda: order.lease_id in b.middleware.busy)
    second = asyncio.create_task(a.orders.modify(USER, order.id, START))
    await asyncio.sleep(1)
    b.cloud.gate.set()
    await asyncio.gather(first, second)
    done = await a.until(order.id, OrderState.FULFILLED, lambda order: not order.wishes)
    assert power_of(done) is Power.RUNNING


@in_virtual_time
async def test_a_lost_answer_is_asked_for_again_and_the_change_is_made_once(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    lost: list[Packet] = []

    def lose_the_first_answer(packet: Packet) -> Deliveries:
        if packet.source == b.address and packet.reply and not lost:
            lost.append(packet)
            return []
        return [(0.0, packet)]

    world.network.faults = lose_the_first_answer
    changed = await a.orders.modify(USER, order.id, STOP)
    assert power_of(changed) is Power.STOPPED
    assert lost
    assert len(b.cloud.calls) == 1


@in_virtual_time
async def test_a_lender_that_cannot_be_reached_is_said_to_be(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    world.network.cut(a.address, b.address)
    with pytest.raises(NotYet):
        await a.orders.modify(USER, order.id, STOP)
    assert (await a.order(order.id)).state is OrderState.FULFILLED


@in_virtual_time
async def test_only_what_runs_and_can_be_is_changed(world: Federation) -> None:
    a = await world.add("a")
    order = (await a.orders.create(USER, machine(image="none"), None))[0]
    with pytest.raises(NotRunning):
        await a.orders.modify(USER, order.id, STOP)
    with pytest.raises(UnknownOrder):
        await a.orders.modify(NOBODY, order.id, STOP)
    net = (await a.orders.create(USER, network(), None))[0]
    await a.until(net.id, OrderState.FULFILLED)
    with pytest.raises(Cannot):
        await a.orders.modify(USER, net.id, STOP)


@in_virtual_time
async def test_a_leases_power_and_console_are_its_borrowers_alone(world: Federation) -> None:
    a, b = await both(world)
    stranger = await world.add("c", Cloud(flavours=[SMALL]))
    order = await large(a)
    assert order.lease_id is not None
    with pytest.raises(FedError) as refused:
        await stranger.orders.engine.lenders.console(b.peer, LeaseConsole(lease_id=order.lease_id))
    assert refused.value.code == "lease.unknown"


# Rules


@in_virtual_time
async def test_rules_of_a_network_are_set_told_and_kept_when_it_is_made_anew(world: Federation) -> None:
    a = await world.add("a", Cloud(kinds=frozenset({"compute"})))
    b = await world.add("b")
    order = (await a.orders.create(USER, network(type="persistent"), None))[0]
    done = await a.until(order.id, OrderState.FULFILLED)
    assert done.rules == ()
    changed = await a.orders.modify(USER, order.id, OrderChange(rules=[SSH]))
    assert changed.rules == (SSH,)
    assert done.lease_id is not None
    assert b.cloud.rules[done.lease_id] == [SSH]
    b.cloud.lose(done.lease_id)
    anew = await a.until(order.id, OrderState.FULFILLED, lambda order: order.lease_id != done.lease_id)
    assert anew.lease_id is not None
    made = b.cloud.instances[anew.lease_id].spec
    assert made.kind == "network"
    assert made.rules == [SSH]
    assert (await a.orders.modify(USER, order.id, OrderChange(rules=[]))).rules == ()


@in_virtual_time
async def test_refused_rules_leave_those_that_are(world: Federation) -> None:
    a = await world.add("a")
    order = (await a.orders.create(USER, network(), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    await a.orders.modify(USER, order.id, OrderChange(rules=[SSH]))
    a.cloud.wish_refusal = NoQuota("Ten rules is all that you may have.")
    with pytest.raises(FedError) as refused:
        await a.orders.modify(USER, order.id, OrderChange(rules=[]))
    assert refused.value.code == "middleware.no_quota"
    now = await a.order(order.id)
    assert (now.rules, now.wishes.rules) == ((SSH,), None)


# Console


@in_virtual_time
async def test_a_console_is_the_end_of_what_was_written_and_controls_no_terminal(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    assert order.lease_id is not None
    b.cloud.consoles[order.lease_id] = "lost\n" + "é\x1b[31mred\x1b[0m\x07\n" * 10_000 + "login: "
    text = await a.orders.console(USER, order.id)
    assert text.endswith("éred\nlogin: ")
    assert "lost" not in text
    assert len(text) <= CONSOLE_LIMIT
    assert not set(text) & {"\x1b", "\x07"}
    with pytest.raises(UnknownOrder):
        await a.orders.console(NOBODY, order.id)


@in_virtual_time
async def test_a_console_that_cannot_be_had_is_an_error_that_says_so(world: Federation) -> None:
    a, b = await both(world)
    order = await large(a)
    assert order.lease_id is not None
    b.cloud.hanging.add(f"console {order.lease_id}")
    with pytest.raises(FedError) as refused:
        await a.orders.console(USER, order.id)
    assert refused.value.code == "middleware.unavailable"
    world.network.cut(a.address, b.address)
    with pytest.raises(FedError) as refused:
        await a.orders.console(USER, order.id)
    assert refused.value.code.startswith("mesh.")


# Quota


def by_member(told: list[QuotaAt]) -> dict[str, QuotaAt]:
    """Answers by the name of who gave them."""
    return {one.member: one for one in told}


@in_virtual_time
async def test_quota_tells_total_used_by_all_and_mine_at_each_member(world: Federation) -> None:
    a, b = await both(world)
    b.cloud.quota = Quota(Amounts(machines=10, vcpu=20), Amounts(machines=7, vcpu=9))
    await large(a)
    theirs = (await b.orders.create(NOBODY, machine(), None))[0]
    await world.settle(lambda: len(b.cloud.instances) == 2)
    told = by_member(await a.orders.quota(USER))
    assert set(told) == {"a.test", "b.test"}
    view = told["b.test"].view
    assert view is not None
    assert (view.account, view.total.machines, view.used.vcpu) == ("federation", 10, 9)
    assert (view.mine.machines, view.mine.vcpu, view.mine.ram_mb) == (1, 4, 4096)
    assert told["a.test"].view is not None
    assert theirs.owner.name == "bob"


@in_virtual_time
async def test_a_member_that_is_dead_or_hangs_costs_the_others_no_answer(world: Federation) -> None:
    a, b = await both(world)
    dead = await world.add("dead")
    world.network.cut(a.address, dead.address)
    b.cloud.hanging.add("quota")
    before = asyncio.get_running_loop().time()
    told = by_member(await a.orders.quota(USER))
    assert asyncio.get_running_loop().time() - before < 10  # virtual seconds
    assert told["a.test"].view is not None
    assert (told["b.test"].view, told["b.test"].code) == (None, "middleware.unavailable")
    assert told["dead.test"].code.startswith("mesh.")


@in_virtual_time
async def test_the_account_is_the_one_that_the_policy_maps_a_machine_to(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    b = await world.add("b", lends=rule("r", "*/*/*", images=["windows"], account="shared"))
    told = by_member(await a.orders.quota(USER, "b.test"))
    assert told["b.test"].code == "member.not_allowed"
    # That the rule is full changes nothing of whose account its machines are in.
    await b.set_policy(rule("r", "*/*/*", images=["deb*"], account="shared", count=1) + rule("s", "*/*/*"))
    await large(a)
    told = by_member(await a.orders.quota(USER, "b.test"))
    assert told["b.test"].view is not None, told
    assert told["b.test"].view.account == "shared"
    with pytest.raises(UnknownMember):
        await a.orders.quota(USER, "nobody")
    assert len(await b.audit("decision")) == 1  # the machine's: a question leaves none behind


@in_virtual_time
async def test_a_quota_is_asked_for_under_each_of_a_users_names_until_one_is_allowed(world: Federation) -> None:
    a = await world.add("a", Cloud(flavours=[SMALL]))
    b = await world.add("b", lends=rule("r", "*/two/*", account="shared"))
    await a.register("carol", "one", "two")
    view = by_member(await a.orders.quota(User("one", "carol")))["b.test"].view
    assert view is not None
    assert view.account == "shared"
    await b.set_policy(rule("r", "*/three/*"))
    refused = by_member(await a.orders.quota(User("one", "carol")))["b.test"]
    assert (refused.view, refused.code) == (None, "member.not_allowed")


# What hangs


@in_virtual_time
async def test_calls_that_hang_hold_up_no_other_lease_and_no_answer(world: Federation) -> None:
    a = await world.add("a")
    first = await a.orders.create(USER, machine(count=40), None)
    ready = [await a.until(order.id, OrderState.FULFILLED) for order in first]
    a.cloud.hanging |= {str(order.lease_id) for order in ready}
    for order in ready:
        await a.orders.delete(USER, order.id)
    await world.settle(lambda: len(a.middleware.busy) == len(ready))
    order = (await a.orders.create(USER, machine(), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    a.cloud.hanging.clear()
    await asyncio.sleep(CALL_LIMIT.total_seconds() + LONGEST_PAUSE)
    for order in ready:
        await a.until(order.id, OrderState.DELETED)  # the calls that hung are made again


@in_virtual_time
async def test_a_cloud_that_does_not_say_what_it_offers_stalls_nobody(world: Federation) -> None:
    a = await world.add("a")
    a.cloud.mute = True
    before = asyncio.get_running_loop().time()
    offers = await asyncio.gather(*(a.orders.offer() for _ in range(20)))
    assert asyncio.get_running_loop().time() - before < 5  # virtual seconds
    assert all(offer == offers[0] and offer.flavours for offer in offers)
    await a.kill()
    await a.start()
    assert a.running


@in_virtual_time
async def test_what_is_no_longer_ours_is_removed_though_some_of_it_hangs(world: Federation) -> None:
    cloud = Cloud()
    a = await world.add("a", cloud)
    orders = [(await a.orders.create(USER, machine(), None))[0] for _ in range(3)]
    for order in orders:
        await a.until(order.id, OrderState.FULFILLED)
    held = sorted(cloud.instances)
    await a.stop()
    cloud.hanging.add(held[0])
    other = await world.add("other", cloud)  # a member that lost its book, at the same cloud
    await world.settle(lambda: set(cloud.instances) == {held[0]})
    cloud.hanging.clear()
    await asyncio.sleep(CALL_LIMIT.total_seconds() + LONGEST_PAUSE)
    await world.settle(lambda: not cloud.instances)
    assert other.running


async def test_both_databases_hold_what_is_wanted_and_what_is_in_force(world_on_both: Federation) -> None:
    a, b = await both(world_on_both)
    order = await large(a)
    b.cloud.slow_power = True
    asked = asyncio.create_task(a.orders.modify(USER, order.id, STOP))
    wanted = await a.until(order.id, OrderState.FULFILLED, lambda order: order.wishes.power is Power.STOPPED)
    for member in (a, b):
        await member.stop()
        await member.start()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert (await a.order(order.id)).wishes == wanted.wishes
    await world_on_both.settle(lambda: order.lease_id in b.cloud.beginning)
    b.cloud.settle_power(str(order.lease_id))
    done = await a.until(order.id, OrderState.FULFILLED, lambda order: not order.wishes)
    assert power_of(done) is Power.STOPPED
    assert (await a.orders.quota(USER, "b.test"))[0].view is not None
