"""Rights end: by time, unless they are renewed; by revocation, at once, wherever something rests on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from federation_member.credentials import signing
from federation_member.credentials.errors import NotYourProject
from federation_member.credentials.identities import HomeIdentities
from federation_member.orders.model import OrderState, OrderType, User
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact, revocation
from fedkit.policy.model import Statement
from fedkit.store import Tx
from tests.component.identity.test_turns import LARGE_ONLY, attempts, borrower, keep
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine
from tests.support.policies import rule

DAY = 86400.0


async def running(world: Federation, a: Member, **changes: object) -> str:
    """An order of alice's that runs elsewhere."""
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, **changes), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    return order.id


async def let_act(member: Member, key: PrivateKey, days: float) -> str:
    """Let a member act for alice, whose own key this is; returns the credential's id."""
    statement = signing.mandate(key.fedid, member.key.fedid)
    mandate = compact.issue(key, statement, member.federation.clock() + timedelta(days=days))
    await member.db.run(lambda tx: signing.keep(tx, "alice", mandate))
    member.credentials.look()
    return mandate.id


@pytest.mark.parametrize("lease_seconds", [3600, 6 * 3600, 7 * 86400])
@in_virtual_time
async def test_a_lease_lives_for_days_while_its_user_may(world: Federation, lease_seconds: int) -> None:
    a, b = await borrower(world), await world.add("b")
    order_id = await running(world, a, lease_seconds=lease_seconds)
    before = await a.order(order_id)
    await asyncio.sleep(3 * DAY)
    after = await a.order(order_id)
    assert (after.state, after.lease_id) == (OrderState.FULFILLED, before.lease_id)
    assert b.cloud.made == [before.lease_id]


@in_virtual_time
async def test_a_lease_ends_with_what_cannot_be_renewed(world: Federation) -> None:
    a = await borrower(world)
    acme = PrivateKey.generate()
    b = await world.add("b", lends=rule("customers", f"{acme.fedid}.customer"))
    await keep(a, acme, "{me}.customer <- {alice}", days=2)
    order_id = await running(world, a)
    await asyncio.sleep(1.9 * DAY)
    assert (await a.order(order_id)).state is OrderState.FULFILLED
    await asyncio.sleep(0.2 * DAY)
    assert (await a.order(order_id)).state is OrderState.CLOSED
    assert not b.cloud.instances


@in_virtual_time
async def test_a_newer_credential_in_the_wallet_takes_the_place_of_the_old(world: Federation) -> None:
    a = await borrower(world)
    acme = PrivateKey.generate()
    await world.add("b", lends=rule("customers", f"{acme.fedid}.customer"))
    await keep(a, acme, "{me}.customer <- {alice}", days=2)
    order_id = await running(world, a)
    await asyncio.sleep(1 * DAY)
    await keep(a, acme, "{me}.customer <- {alice}", days=3)
    await asyncio.sleep(2 * DAY)
    assert (await a.order(order_id)).state is OrderState.FULFILLED


async def suspended(member: Member) -> None:
    """The operator: `fed member user revoke alice`."""
    await member.accounts.suspend("alice")


async def removed(member: Member) -> None:
    """The operator: `fed member user remove alice`."""
    await member.accounts.remove("alice")


async def out_of_the_project(member: Member) -> None:
    """The operator: `fed member user projects alice --project other`."""
    await member.accounts.set_projects("alice", ["other"])


async def another_key(member: Member) -> None:
    """The operator or alice herself: `fed member user key alice FILE`."""
    await member.accounts.set_key("alice", PrivateKey.generate().public)


@pytest.mark.parametrize("end", [suspended, removed, out_of_the_project, another_key])
@in_virtual_time
async def test_what_the_home_member_takes_away_ends_at_the_lender_within_seconds(
    world: Federation, end: Callable[[Member], Awaitable[None]]
) -> None:
    a, b = await borrower(world), await world.add("b", lends=rule("project", "*/project/*"))
    await running(world, a)
    began = world.clock()
    await end(a)
    await world.settle(lambda: not b.cloud.instances)
    assert world.clock() - began < timedelta(seconds=10)


@in_virtual_time
async def test_what_was_taken_back_is_not_renewed_at_a_lender_that_does_not_hear_of_it(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order_id = await running(world, a)
    await a.db.run(lambda tx: signing.revoke(tx, "alice", world.clock()))  # nobody is told
    await asyncio.sleep(600)  # a lease, in which it is renewed twice
    order = await a.until(order_id, OrderState.CLOSED)
    assert order.code == "member.revoked"
    await world.settle(lambda: not b.cloud.instances)
    assert not await b.audit("revocation")


@in_virtual_time
async def test_nobody_elses_lease_ends_with_it(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order_id = await running(world, a)
    await a.accounts.suspend("bob")
    await a.accounts.set_projects("alice", ["project", "another"])
    await asyncio.sleep(60)
    assert (await a.order(order_id)).state is OrderState.FULFILLED
    assert len(b.cloud.made) == 1


@in_virtual_time
async def test_nothing_is_said_of_a_user_in_a_project_that_they_left(world: Federation) -> None:
    a = await borrower(world, "project", "another")
    await a.accounts.set_projects("alice", ["another"])
    with pytest.raises(NotYourProject):
        await a.db.run(lambda tx: HomeIdentities(a.key, world.clock).of(tx, User("project", "alice")))


@in_virtual_time
async def test_a_suspended_user_asks_nobody_until_restored(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    order_id = await running(world, a, type=OrderType.PERSISTENT)
    await a.accounts.suspend("alice")
    await a.until(order_id, OrderState.OPEN, lambda o: o.code == "credentials.suspended")
    await world.settle(lambda: not b.cloud.instances)
    await a.accounts.restore("alice")
    await a.until(order_id, OrderState.FULFILLED)
    assert len(b.cloud.made) == 2


@in_virtual_time
async def test_a_revocation_survives_a_crash_of_its_maker_and_of_its_hearer(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    await running(world, a)
    await a.db.run(lambda tx: signing.revoke(tx, "alice", world.clock()))  # by another process, which tells nobody
    await a.kill()
    await a.start()
    await b.kill()
    await b.start()
    await world.settle(lambda: not b.cloud.instances)


@in_virtual_time
async def test_with_a_key_of_ones_own_nothing_is_asked_without_ones_word(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    key = PrivateKey.generate()
    await a.accounts.set_key("alice", key.public)
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, type=OrderType.PERSISTENT), None))[0]
    assert order.code == "credentials.no_mandate"
    assert await attempts(a, order.id) == []
    await let_act(a, key, days=2)
    await a.until(order.id, OrderState.FULFILLED)
    await asyncio.sleep(1.5 * DAY)
    assert (await a.order(order.id)).state is OrderState.FULFILLED
    await asyncio.sleep(1 * DAY)
    assert (await a.order(order.id)).code == "credentials.no_mandate"
    assert not b.cloud.instances


@in_virtual_time
async def test_a_user_takes_back_their_word_with_their_own_key(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    key = PrivateKey.generate()
    await a.accounts.set_key("alice", key.public)
    mandate = await let_act(a, key, days=20)
    await running(world, a)
    listing = revocation.issue(key, 1, world.clock(), {mandate: world.clock() + timedelta(days=20)})
    await a.credentials.publish("alice", listing.text)
    await world.settle(lambda: not b.cloud.instances)


@in_virtual_time
async def test_what_a_third_party_takes_back_ends_what_rests_on_it(world: Federation) -> None:
    a = await borrower(world)
    acme = PrivateKey.generate()
    b = await world.add("b", lends=rule("customers", f"{acme.fedid}.customer"))
    given = await keep(a, acme, "{me}.customer <- {alice}")
    await running(world, a)
    until = world.clock() + timedelta(days=10)
    others = revocation.issue(PrivateKey.generate(), 1, world.clock(), {given: until})
    await a.credentials.publish("alice", others.text)
    await asyncio.sleep(60)
    assert b.cloud.instances, "only its issuer revokes a credential"
    await a.credentials.publish("alice", revocation.issue(acme, 1, world.clock(), {given: until}).text)
    await world.settle(lambda: not b.cloud.instances)


@in_virtual_time
async def test_what_said_the_same_at_the_same_second_as_what_is_revoked_is_said_differently(world: Federation) -> None:
    a = await borrower(world)

    def twice(tx: Tx) -> tuple[str, str]:
        says = [Statement.parse(f"{a.key.fedid}.user <- {USER_KEY}")]
        (first,) = signing.say(tx, "alice", a.key, says, world.clock())
        assert signing.say(tx, "alice", a.key, says, world.clock()) == [first]
        signing.revoke(tx, "alice", world.clock())
        (second,) = signing.say(tx, "alice", a.key, says, world.clock())
        return first.id, second.id

    first, second = await a.db.run(twice)
    assert first != second


USER_KEY = PrivateKey.generate().fedid
