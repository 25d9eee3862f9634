"""Who holds an experiment's credential operates it; who shows a forged, foreign or expired one does not. All in virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from federation_member.credentials import wallet
from federation_member.experiments import capability
from federation_member.experiments.errors import NotGranted, UnknownExperiment
from federation_member.experiments.model import State
from federation_member.orders.model import User
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.policy.errors import BadCredential
from fedkit.policy.model import Entity, Role, Statement
from tests.support.experiments import line, sites, until
from tests.support.federation import USER, Federation, Member, in_virtual_time

BOB = User("project", "bob")


async def principal(member: Member, user: User) -> str:
    """The user's own fedid."""
    return (await member.accounts.get(user.name)).principal


@in_virtual_time
async def test_a_granted_one_shows_renews_and_terminates(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, _grant, _key = await h.experiments.create(USER, line("h.test"))
        wanted, until_then = made.experiment.id, world.clock() + timedelta(hours=1)
        with pytest.raises(UnknownExperiment):
            await h.experiments.get(BOB, wanted)
        grant = await h.experiments.grant(USER, "line", await principal(h, BOB), until_then)
        shown = [grant.credential]
        assert (await h.experiments.get(BOB, wanted, shown)).experiment.name == "line"
        await h.experiments.renew(BOB, wanted, until_then, shown)
        kept = compact.read(grant.credential)
        await h.db.run(lambda tx: wallet.add(tx, BOB.name, kept, world.clock()))
        await h.experiments.terminate(BOB, wanted)
        await until(h, wanted, State.TERMINATED)


@in_virtual_time
async def test_an_expired_one_does_not(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, _grant, _key = await h.experiments.create(USER, line("h.test"))
        until_then = world.clock() + timedelta(hours=1)
        grant = await h.experiments.grant(USER, "line", await principal(h, BOB), until_then)
        await asyncio.sleep(3601)
        with pytest.raises(NotGranted):
            await h.experiments.terminate(BOB, made.experiment.id, [grant.credential])


@in_virtual_time
async def test_forged_and_foreign_ones_do_not(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, mine, _key = await h.experiments.create(USER, line("h.test"))
        wanted, bob = made.experiment.id, await principal(h, BOB)
        until_then = world.clock() + timedelta(hours=1)
        other = capability.issue(PrivateKey.generate(), bob, until_then).credential
        for_alice = mine.credential
        for credential in (other, for_alice):
            with pytest.raises(NotGranted):
                await h.experiments.terminate(BOB, wanted, [credential])
        head, payload, signature = other.split(".")
        with pytest.raises(BadCredential):
            await h.experiments.terminate(BOB, wanted, [f"{for_alice.split('.')[0]}.{payload}.{signature}", head])
        assert (await h.experiments.get(USER, "line")).experiment.state is not State.TERMINATING


@in_virtual_time
async def test_the_key_that_its_owner_was_given_lets_others_operate_it_too(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, _grant, key = await h.experiments.create(USER, line("h.test"))
        assert key.fedid == made.experiment.fedid
        statement = Statement(Role(key.fedid, capability.ROLE), (Entity(await principal(h, BOB)),))
        credential = compact.issue(key.identity, statement, world.clock() + timedelta(hours=1)).raw.decode()
        assert (await h.experiments.get(BOB, made.experiment.id, [credential])).experiment.name == "line"


@in_virtual_time
async def test_what_is_revoked_lets_nobody_in_until_it_is_granted_anew(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, _grant, key = await h.experiments.create(USER, line("h.test"))
        wanted, bob, until_then = made.experiment.id, await principal(h, BOB), world.clock() + timedelta(hours=1)
        first = await h.experiments.grant(USER, "line", bob, until_then)
        signed = capability.issue(key.identity, bob, until_then + timedelta(hours=1))  # stands in no list
        kept = compact.read(first.credential)
        await h.db.run(lambda tx: wallet.add(tx, BOB.name, kept, world.clock()))
        assert (await h.experiments.get(BOB, wanted)).experiment.name == "line"
        (listed,) = await h.experiments.revoke(USER, "line", bob)
        assert (listed.principal, listed.revoked) == (bob, world.clock())
        assert await h.experiments.revoke(USER, "line", bob) == [listed]
        for shown in ((), (first.credential,), (signed.credential,)):
            with pytest.raises((NotGranted, UnknownExperiment)):
                await h.experiments.terminate(BOB, wanted, shown)
        later = await h.experiments.grant(USER, "line", bob, until_then + timedelta(minutes=1))
        with pytest.raises(NotGranted):  # the first is and stays revoked
            await h.experiments.get(BOB, wanted, [first.credential])
        assert (await h.experiments.get(BOB, wanted, [later.credential])).experiment.name == "line"
        assert [one.revoked is None for one in await h.experiments.grants(USER, "line")] == [True, False]
        await asyncio.sleep(3600)
        assert [one.expires for one in await h.experiments.grants(USER, "line")] == [later.expires]


@in_virtual_time
async def test_its_owner_alone_grants_lists_and_revokes(world: Federation) -> None:
    async with sites(world, "h") as (h,):
        made, _grant, _key = await h.experiments.create(USER, line("h.test"))
        wanted, bob, until_then = made.experiment.id, await principal(h, BOB), world.clock() + timedelta(hours=1)
        grant = await h.experiments.grant(USER, "line", bob, until_then)
        kept = compact.read(grant.credential)
        await h.db.run(lambda tx: wallet.add(tx, BOB.name, kept, world.clock()))
        with pytest.raises(UnknownExperiment):
            await h.experiments.grant(BOB, wanted, bob, until_then)
        with pytest.raises(UnknownExperiment):
            await h.experiments.grants(BOB, wanted)
        with pytest.raises(UnknownExperiment):
            await h.experiments.revoke(BOB, wanted, bob)
        whole, own = await h.experiments.credentials(BOB, wanted)
        assert (whole.experiment.id, own) == (wanted, None)
        await h.experiments.terminate(USER, "line")
        await until(h, "line", State.TERMINATED)
        await h.experiments.revoke(USER, "line", bob)
        with pytest.raises(UnknownExperiment):
            await h.experiments.get(BOB, wanted)
