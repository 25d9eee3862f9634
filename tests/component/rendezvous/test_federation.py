"""Members find one another through the Rendezvous, and live on without it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from fedkit.protocol.lending import Flavour, Image, Offer
from rendezvous import store
from tests.component.rendezvous.federation import RENDEZVOUS, Federation, eventually

BIG = Offer(kinds=["compute"], flavours=[Flavour(name="big", vcpu=8, ram_mb=16384, disk_gb=40)])


async def test_members_learn_of_one_another(federation: Federation) -> None:
    async with federation.rendezvous(), federation.member("site-a.test") as a, federation.member("site-b.test") as b:
        b.directory.set_offer(BIG)
        await eventually(lambda: a.names() == b.names() == ["site-a.test", "site-b.test"])
        await eventually(lambda: a.directory.find("site-b.test").offer == BIG)
        await eventually(lambda: a.directory.state().current and a.directory.state().as_of is not None)
        assert a.directory.freshness() == "fresh"
        assert [m.is_self for m in a.directory.members()] == [True, False]


async def test_whoever_leaves_is_gone_at_once(federation: Federation) -> None:
    async with federation.rendezvous(), federation.member("site-a.test") as a:
        async with federation.member("site-b.test"):
            await eventually(lambda: a.names() == ["site-a.test", "site-b.test"])
        await eventually(lambda: a.names(alive=False) == ["site-b.test"])


async def test_whoever_is_silent_expires_and_may_come_back(federation: Federation) -> None:
    async with federation.rendezvous() as rendezvous, federation.member("site-a.test") as a:
        async with federation.member("site-b.test", crash=True):
            await eventually(lambda: a.names() == ["site-a.test", "site-b.test"])
        assert a.names() == ["site-a.test", "site-b.test"]
        federation.clock.advance(61)
        a.reconnect()
        rendezvous.registry.look()
        await eventually(lambda: a.names(alive=False) == ["site-b.test"])
        async with federation.member("site-b.test"):
            await eventually(lambda: a.names() == ["site-a.test", "site-b.test"])


async def test_a_member_works_with_the_last_known_list(federation: Federation) -> None:
    async with (
        federation.rendezvous(),
        federation.member("site-b.test", crash=True),
        federation.member("site-a.test", crash=True) as a,
    ):
        await eventually(lambda: a.names() == ["site-a.test", "site-b.test"] and a.directory.state().as_of is not None)
    async with federation.member("site-a.test") as a:
        assert a.names() == ["site-a.test", "site-b.test"]
        state = a.directory.state()
        assert not state.reachable
        assert state.as_of is not None
        assert f"working with the list of {state.as_of:%F %H:%M:%S} UTC" in state.message
        async with federation.rendezvous():
            await eventually(lambda: a.directory.state().current)


async def test_a_member_without_a_rendezvous_says_so(federation: Federation) -> None:
    async with federation.member("site-a.test", alone=True) as a:
        assert a.names() == ["site-a.test"]
        assert a.directory.state().message == "No Rendezvous is configured; no list is known yet."


async def test_the_rendezvous_comes_back_with_its_list(federation: Federation) -> None:
    async with federation.member("site-a.test") as a, federation.member("site-b.test") as b:
        async with federation.rendezvous():
            await eventually(lambda: a.names() == b.names() == ["site-a.test", "site-b.test"])
        a.directory.set_offer(BIG)
        federation.clock.advance(600)
        async with federation.rendezvous() as rendezvous:
            rendezvous.registry.look()
            await eventually(lambda: b.directory.find("site-a.test").offer == BIG)
            assert (await rendezvous.db.read(store.count_members)) == {True: 2, False: 0}


async def test_a_rendezvous_that_lost_its_store_does_not_empty_the_federation(federation: Federation) -> None:
    async with federation.member("site-a.test") as a:
        async with federation.rendezvous(), federation.member("site-b.test", crash=True):
            await eventually(lambda: a.names() == ["site-a.test", "site-b.test"] and a.directory.state().current)
        for file in federation.folder.glob("rendezvous.db*"):
            file.unlink()
        async with federation.rendezvous():
            before = a.directory.state().as_of
            a.reconnect()
            await eventually(lambda: a.directory.state().current and a.directory.state().as_of != before)
            assert a.names() == ["site-a.test", "site-b.test"]
            federation.clock.advance(301)
            a.reconnect()
            assert a.names(alive=False) == ["site-b.test"]
            async with federation.member("site-b.test"):
                await eventually(lambda: a.names() == ["site-a.test", "site-b.test"])


async def test_a_cut_is_made_good(federation: Federation) -> None:
    async with (
        federation.rendezvous(),
        federation.member("site-a.test") as a,
        federation.member("site-b.test") as b,
    ):
        await eventually(lambda: a.names() == b.names() == ["site-a.test", "site-b.test"])
        a.link.set_up(False)
        assert a.directory.state().code == "mesh.link_down"
        b.directory.set_offer(BIG)
        a.link.set_up(True)
        await eventually(lambda: a.directory.find("site-b.test").offer == BIG)


async def test_who_is_not_allowed_is_told_clearly(federation: Federation) -> None:
    allow = [federation.key("site-a.test").fedid]
    async with (
        federation.rendezvous(allow=allow) as rendezvous,
        federation.member("site-a.test") as a,
        federation.member("site-b.test") as b,
    ):
        await eventually(lambda: b.directory.state().code == "rendezvous.not_allowed")
        assert b.directory.state().reachable
        assert "ask its operator to add it" in b.directory.state().message
        await eventually(lambda: a.directory.state().current)
        assert (await rendezvous.db.read(store.count_members)) == {True: 1, False: 0}


async def test_a_full_rendezvous_says_so(federation: Federation) -> None:
    async with federation.rendezvous(max_members=1), federation.member("site-a.test") as a:
        await eventually(lambda: a.directory.state().current)
        async with federation.member("site-b.test") as b:
            await eventually(lambda: b.directory.state().code == "rendezvous.full")


async def test_an_offer_that_does_not_fit_is_told_to_its_operator(federation: Federation) -> None:
    async with federation.rendezvous(), federation.member("site-a.test") as a:
        await eventually(lambda: a.directory.state().current)
        a.directory.set_offer(Offer(images=[Image(name=f"image-{n}", description="d" * 500) for n in range(100)]))
        await eventually(lambda: a.directory.state().code == "rendezvous.offer_too_large")


async def test_a_dead_subscriber_does_not_slow_the_others(federation: Federation) -> None:
    async with federation.rendezvous(), federation.member("site-a.test") as a, federation.member("site-b.test") as b:
        await eventually(lambda: a.names() == b.names() == ["site-a.test", "site-b.test"])
        async with federation.member("site-c.test", crash=True) as c:
            await eventually(lambda: len(a.names()) == len(b.names()) == len(c.names()) == 3)
            federation.network.cut(RENDEZVOUS, "fm.site-c.test")
            before = len(federation.network.packets)
            for number in range(20):
                b.directory.set_offer(Offer(attributes={"round": number}))
                await eventually(lambda: a.directory.find("site-b.test").offer == b.directory.members()[0].offer)
            told = [p for p in federation.network.packets[before:] if p.target == "fm.site-c.test" and not p.reply]
            assert len(told) == 1


async def test_all_of_it_on_postgresql(federation_on_postgresql: Federation) -> None:
    federation = federation_on_postgresql
    names = [f"site-{letter}.test" for letter in "abcdef"]
    async with AsyncExitStack() as stack:
        async with federation.rendezvous():
            members = await asyncio.gather(
                *(stack.enter_async_context(federation.member(name, crash=True)) for name in names)
            )
            await eventually(lambda: all(member.names() == names for member in members))
            members[0].directory.set_offer(BIG)
            await eventually(lambda: all(member.directory.find(names[0]).offer == BIG for member in members))
        async with federation.rendezvous() as rendezvous:
            async with federation.member("site-g.test"):
                await eventually(lambda: all(member.names() == [*names, "site-g.test"] for member in members))
            await eventually(lambda: all(member.names(alive=False) == ["site-g.test"] for member in members))
            assert (await rendezvous.db.read(store.count_members)) == {True: 6, False: 1}


@pytest.mark.parametrize(
    "count", [40]
)  # all tell all: the work grows with the square; see tests/benchmarks/rendezvous.py
async def test_many_members(federation: Federation, count: int) -> None:
    names = sorted(f"site-{n}.test" for n in range(count))
    async with federation.rendezvous() as rendezvous, AsyncExitStack() as stack:
        members = await asyncio.gather(
            *(stack.enter_async_context(federation.member(name, crash=True)) for name in names)
        )
        await eventually(lambda: all(member.names() == names for member in members))
        members[0].directory.set_offer(BIG)
        await eventually(lambda: all(member.directory.find(names[0]).offer == BIG for member in members))
        assert (await rendezvous.db.read(store.count_members)) == {True: count, False: 0}
