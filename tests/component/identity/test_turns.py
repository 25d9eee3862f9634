"""Lenders are asked under the user's names in turn, and shown what they need to see and nothing else."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from federation_member.access.world import Policy
from federation_member.errors import NotYourProject
from federation_member.orders.model import Attempt, AttemptState, OrderState
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.policy.model import Statement
from tests.support.fake_middleware import SMALL, Cloud
from tests.support.federation import USER, Federation, Member, in_virtual_time, machine, network
from tests.support.policies import NOTHING, rule
from tests.support.virtual_time import Crash, InlineDatabase

LARGE_ONLY = "vcpu >= 4"


async def borrower(world: Federation, *projects: str) -> Member:
    """A member that cannot make the machine itself, whose alice is in these projects."""
    member = await world.add("a", Cloud(flavours=[SMALL]))
    await member.accounts.set_projects("alice", projects or ["project"])
    return member


async def attempts(member: Member, order_id: str) -> list[Attempt]:
    """Who was asked, in order."""
    return list((await member.orders.why(USER, order_id)).attempts)


async def keep(member: Member, key: PrivateKey, says: str, days: int = 10) -> str:
    """Put what a key says into alice's wallet; `{alice}` stands for her fedid. Returns its id."""
    alice = (await member.accounts.get("alice")).principal
    statement = Statement.parse(says.format(me=key.fedid, alice=alice))
    credential = compact.issue(key, statement, member.federation.clock() + timedelta(days=days))
    return (await member.credentials.add("alice", credential.raw.decode())).credential.id


@in_virtual_time
async def test_exactly_what_every_request_needs_is_sent(world: Federation) -> None:
    a, b = await borrower(world), await world.add("b")
    await keep(a, PrivateKey.generate(), "{me}.friend <- {alice}")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    (attempt,) = await attempts(a, order.id)
    u, me = (await a.accounts.get("alice")).principal, a.key.fedid
    assert attempt.name == f"{me}/project/alice"
    assert {sent.statement for sent in attempt.sent} == {
        f"{me}.user <- {u}",
        f"{me}.project_project <- {u}",
        f"{me}.user_alice <- {u}",
        f"{u}.acting_for <- {me}",
    }
    assert attempt.access.proof is not None
    assert len(b.cloud.instances) == 1


@in_virtual_time
async def test_the_next_name_is_tried_at_the_same_lender_before_anybody_else(world: Federation) -> None:
    a = await borrower(world, "project", "second", "third")
    b = await world.add("b", lends=rule("second", f"{a.key.fedid}/second/*"))
    await world.add("c", lends=NOTHING)
    for _ in range(2):  # whoever comes first
        order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
        done = await a.until(order.id, OrderState.FULFILLED)
        asked = [(x.member, x.name.partition("/")[2], x.state) for x in await attempts(a, order.id)]
        at_c = [("c.test", f"{name}/alice", AttemptState.REFUSED) for name in ("project", "second", "third")]
        at_b = [("b.test", "project/alice", AttemptState.REFUSED), ("b.test", "second/alice", AttemptState.RUNNING)]
        assert asked in (at_b, at_c + at_b)
        assert done.lease_id in b.cloud.instances


@in_virtual_time
async def test_an_order_names_its_project(world: Federation) -> None:
    a = await borrower(world, "project", "second")
    await world.add("b", lends=rule("both", f"{a.key.fedid}/*/*"))
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY, project="second"), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    assert [x.name for x in await attempts(a, order.id)] == [f"{a.key.fedid}/second/alice"]
    with pytest.raises(NotYourProject, match="yours: project, second"):
        await a.orders.create(USER, machine(project="another"), None)


@in_virtual_time
async def test_what_is_missing_is_found_in_the_wallet_and_nothing_more_is_sent(world: Federation) -> None:
    a = await borrower(world)
    acme, university, other = (PrivateKey.generate() for _ in range(3))
    b = await world.add("b", lends=rule("customers", f"{acme.fedid}.customer"))
    needed = {
        await keep(a, acme, f"{{me}}.customer <- {university.fedid}.student"),
        await keep(a, university, "{me}.student <- {alice}"),
    }
    await keep(a, other, "{me}.friend <- {alice}")
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    first, second = await attempts(a, order.id)
    assert (first.state, first.code) == (AttemptState.REFUSED, "member.not_allowed")
    assert not any(sent.kept for sent in first.sent)
    assert {sent.id for sent in second.sent if sent.kept} == needed
    assert first.name == second.name
    assert len(b.cloud.made) == 1


@in_virtual_time
async def test_a_credential_that_comes_later_is_tried_at_once(world: Federation) -> None:
    a = await borrower(world)
    acme = PrivateKey.generate()
    await world.add("b", lends=rule("customers", f"{acme.fedid}.customer"))
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.OPEN, lambda o: o.code == "member.not_allowed")
    before = world.clock()
    await keep(a, acme, "{me}.customer <- {alice}")
    await a.until(order.id, OrderState.FULFILLED)
    assert world.clock() - before < timedelta(seconds=5)


@in_virtual_time
async def test_nobody_is_asked_more_often_than_makes_sense(world: Federation) -> None:
    a = await borrower(world, "project", "second", "third")
    acme = PrivateKey.generate()
    await keep(a, acme, "{me}.customer <- {alice}")
    for name in ("b", "c"):
        await world.add(name, lends=rule("acme", f"{acme.fedid}.customer & {acme.fedid}.partner"))
    order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
    await a.until(order.id, OrderState.OPEN, lambda o: o.code == "member.not_allowed" and "c.test" in o.reason)
    asked = [(x.member, x.name) for x in await attempts(a, order.id)]
    assert len(asked) == len(set(asked)) == 6  # two lenders, three names; what is kept does not complete a set


@in_virtual_time
async def test_a_machine_joins_its_network_under_the_name_that_that_is_lent_to(world: Federation) -> None:
    a = await borrower(world, "project", "second")
    await world.add("b", lends=rule("second", f"{a.key.fedid}/second/*"))
    lan = (await a.orders.create(USER, network(location="b.test"), None))[0]
    await a.until(lan.id, OrderState.FULFILLED)
    joined = (await a.orders.create(USER, machine(networks=[lan.id]), None))[0]
    await a.until(joined.id, OrderState.FULFILLED)
    assert [x.name for x in await attempts(a, joined.id)] == [f"{a.key.fedid}/second/alice"]


@in_virtual_time
async def test_its_own_member_is_asked_in_turn_too(world: Federation) -> None:
    a = await world.add("a", lends=NOTHING)
    key = a.key.fedid
    a.world.set_policy(Policy.parse(rule("second", f"{key}/second/alice", count=1), "test"), world.clock())
    await a.accounts.set_projects("alice", ["project", "second"])
    order = (await a.orders.create(USER, machine(), None))[0]
    assert (await a.until(order.id, OrderState.FULFILLED)).member == "a.test"


@pytest.mark.parametrize("victim", ["a", "b"])
@pytest.mark.parametrize("moments", range(0, 20, 2))
@in_virtual_time
async def test_whoever_dies_at_any_commit_one_machine_comes_of_it(world: Federation, victim: str, moments: int) -> None:
    a = await borrower(world, "project", "second")
    acme = PrivateKey.generate()
    await keep(a, acme, "{me}.customer <- {alice}")
    policy = rule("customers", f"{acme.fedid}.customer & {a.key.fedid}.project_second")
    b = await world.add("b", lends=policy)
    dying = {"a": a, "b": b}[victim]
    left = moments

    def on_commit(_moment: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            dying.middleware.dead = True
            raise Crash

    assert isinstance(dying.db, InlineDatabase)
    dying.db.on_commit = on_commit
    new = machine(requirements=LARGE_ONLY, lease_seconds=86400)
    with suppress(Crash):
        await a.orders.create(USER, new, "key")
    await asyncio.sleep(30)
    await dying.kill()
    await dying.start()
    order = (await a.orders.create(USER, new, "key"))[0]
    await asyncio.sleep(1800)
    done = await a.until(order.id, OrderState.FULFILLED)
    await world.settle(lambda: list(b.cloud.instances) == [done.lease_id])
    asked = await attempts(a, order.id)
    running = next(x for x in asked if x.lease_id == done.lease_id)
    assert running.name == f"{a.key.fedid}/second/alice"
