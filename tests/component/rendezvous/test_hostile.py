"""What a hostile member or a hostile Rendezvous can do: hide, and be refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import select, update
from structlog.testing import capture_logs

from federation_member.directory.announcer import describe
from fedkit.clock import now
from fedkit.errors import RemoteError
from fedkit.identity import jws
from fedkit.mesh.api import Outcome, Peer
from fedkit.mesh.node import MeshNode
from fedkit.protocol import Empty
from fedkit.protocol.announcement import TYPE, sign_announcement
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import (
    Alive,
    Announce,
    Announced,
    Changes,
    ChangesSince,
    Member,
    Members,
    MembersPage,
)
from fedkit.store import Database
from rendezvous import store
from tests.component.rendezvous.federation import RENDEZVOUS, Federation, RunningRendezvous, eventually

LENDS = Offer(kinds=["compute"])


class Stranger:
    """A node that says what it likes and remembers what it was answered."""

    def __init__(self, mesh: MeshNode, db: Database) -> None:
        self.mesh = mesh
        self._db = db
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        for operation in ("rendezvous.announce", "rendezvous.changed", "rendezvous.leave"):
            mesh.on_answer(operation, lambda tx, outcome: tx.after_commit(lambda: self._outcomes.put_nowait(outcome)))

    async def command(self, peer: Peer, operation: str, body: BaseModel) -> str:
        """Send a command and return the code that refused it, empty if none did."""
        await self._db.run(
            lambda tx: self.mesh.enqueue(tx, peer, operation, body, deadline=now() + timedelta(seconds=10))
        )
        async with asyncio.timeout(20):
            outcome = await self._outcomes.get()
        return outcome.error.code if outcome.error else ""


@pytest.fixture
async def rendezvous(federation: Federation) -> AsyncIterator[RunningRendezvous]:
    async with federation.rendezvous() as running:
        yield running


@pytest.fixture
async def stranger(federation: Federation) -> AsyncIterator[Stranger]:
    async with federation.database("evil.test", store.metadata) as db:
        mesh = MeshNode(federation.key("evil.test"), "fm.evil.test", db, federation.network.link("fm.evil.test"))
        stranger = Stranger(mesh, db)
        async with mesh:
            yield stranger


def announcement(federation: Federation, site: str, **changes: Any) -> str:
    """What a site's member would sign, with changes."""
    key = federation.key(site)
    said = describe(Peer(key.fedid, f"fm.{site}"), site, LENDS, 1, now()).model_copy(update=changes)
    return sign_announcement(key, said)


async def test_a_member_announces_nobody_else(
    federation: Federation, rendezvous: RunningRendezvous, stranger: Stranger
) -> None:
    peer = rendezvous.mesh.me

    async def say(signed: str) -> str:
        return await stranger.command(peer, "rendezvous.announce", Announce(signed=signed, ttl=60))

    assert await say(announcement(federation, "site-b.test")) == "rendezvous.not_yours"
    victim = federation.key("site-b.test").fedid
    assert await say(announcement(federation, "evil.test", fedid=victim)) == "rendezvous.bad_announcement"
    assert await say(announcement(federation, "evil.test", address="fm.x.evil.test")) == "rendezvous.not_yours"
    assert await say(announcement(federation, "evil.test", name="site-b.test")) == "rendezvous.bad_announcement"
    old = now() - timedelta(minutes=6)
    assert await say(announcement(federation, "evil.test", issued=old)) == "rendezvous.stale_announcement"
    assert await say("a.b.c") == "rendezvous.bad_announcement"
    assert (await rendezvous.db.read(store.count_members)) == {True: 0, False: 0}
    assert await say(announcement(federation, "evil.test", serial=7)) == ""
    assert await say(announcement(federation, "evil.test", serial=7)) == "rendezvous.stale_announcement"


async def test_a_stranger_learns_nothing_where_it_is_not_allowed(federation: Federation, stranger: Stranger) -> None:
    async with federation.rendezvous(allow=[federation.key("site-a.test").fedid]) as rendezvous:
        peer = rendezvous.mesh.me
        for operation, body, answer in (
            ("rendezvous.members", MembersPage(), Members),
            ("rendezvous.changes", ChangesSince(revision=0, epoch="0" * 32), Changes),
            ("rendezvous.alive", Alive(serial=1), Announced),
        ):
            with pytest.raises(RemoteError) as caught:
                await stranger.mesh.ask(peer, operation, body, answer)
            assert caught.value.code == "rendezvous.not_allowed"
        assert await stranger.command(peer, "rendezvous.leave", Empty()) == "rendezvous.not_allowed"


async def test_only_our_rendezvous_tells_us_who_is_there(
    federation: Federation, rendezvous: RunningRendezvous, stranger: Stranger
) -> None:
    async with federation.member("site-a.test") as a:
        await eventually(lambda: a.directory.state().current)
        fake = Member(
            fedid=federation.key("evil.test").fedid,
            signed=announcement(federation, "evil.test"),
            alive=True,
            last_seen=now(),
            revision=99,
        )
        epoch = (await rendezvous.db.read(store.read_state)).epoch
        news = Changes(members=[fake], since=0, revision=99, more=False, epoch=epoch)
        assert await stranger.command(a.mesh.me, "rendezvous.changed", news) == "directory.not_our_rendezvous"
        assert a.names() == ["site-a.test"]


async def change_entry(rendezvous: RunningRendezvous, fedid: str, **values: Any) -> None:
    """Let the Rendezvous's operator change an entry and tell everybody."""

    def change(tx: Any) -> None:
        revision = store.lock_state(tx).revision + 1
        tx.conn.execute(update(store.the_list).values(revision=revision))
        tx.conn.execute(update(store.entries).where(store.entries.c.fedid == fedid).values(revision=revision, **values))

    await rendezvous.db.run(change)
    rendezvous.registry.look()


async def test_a_rendezvous_alters_nobody(federation: Federation, rendezvous: RunningRendezvous) -> None:
    async with federation.member("site-a.test") as a, federation.member("site-b.test") as b:
        b.directory.set_offer(LENDS)
        await eventually(lambda: "site-b.test" in a.names() and a.directory.find("site-b.test").offer == LENDS)
        fedid = federation.key("site-b.test").fedid
        query = select(store.entries.c.signed).where(store.entries.c.fedid == fedid)
        true = await rendezvous.db.read(lambda conn: conn.execute(query).scalar_one())
        header, _payload, signature = true.split(".")
        said = describe(Peer(fedid, "fm.evil.site-b.test"), "site-b.test", LENDS, 10**15, now()).model_dump_json()
        lies = {
            "altered": f"{header}.{jws.encode(said.encode())}.{signature}",
            "signed by itself": jws.sign(federation.rendezvous_key, TYPE, said.encode()),
            "somebody else's": announcement(federation, "evil.test"),
            "an older one": announcement(federation, "site-b.test", serial=0),
        }
        for lie in lies.values():
            with capture_logs() as logs:
                await change_entry(rendezvous, fedid, signed=lie)
                await eventually(lambda: any(entry["event"] == "directory_entry_refused" for entry in logs))
            assert a.directory.find("site-b.test").address == "fm.site-b.test"
            assert a.directory.find(fedid).offer == LENDS


async def test_a_rendezvous_can_hide_a_member(federation: Federation, rendezvous: RunningRendezvous) -> None:
    async with federation.member("site-a.test") as a, federation.member("site-b.test", crash=True):
        await eventually(lambda: a.names() == ["site-a.test", "site-b.test"])
        await change_entry(rendezvous, federation.key("site-b.test").fedid, alive=False)
        await eventually(lambda: a.names(alive=False) == ["site-b.test"])


@pytest.mark.parametrize("fault", ["unordered", "endless", "garbage"])
async def test_pages_that_are_no_list_are_refused(federation: Federation, fault: str) -> None:
    """A Rendezvous that answers nonsense neither hangs its members nor changes what they know."""
    async with federation.database("fake", store.metadata) as db:
        mesh = MeshNode(federation.rendezvous_key, RENDEZVOUS, db, federation.network.link(RENDEZVOUS))
        members = [
            Member(
                fedid=federation.key(site).fedid,
                signed=announcement(federation, site),
                alive=True,
                last_seen=now(),
                revision=1,
            )
            for site in ("site-b.test", "site-c.test")
        ]
        members.sort(key=lambda member: member.fedid, reverse=True)
        told = [] if fault == "endless" else members
        page = Members(members=told, count=2, complete=False, revision=1, epoch="0" * 32)
        asked: list[str] = []

        async def answer(request: Any) -> BaseModel:
            asked.append(request.body.after)
            return Empty() if fault == "garbage" else page

        mesh.on_command("rendezvous.announce", Announce, lambda _tx, _r: Announced(ttl=60, revision=1, epoch="0" * 32))
        mesh.on_query("rendezvous.members", MembersPage, answer)
        with capture_logs() as logs:
            async with mesh, federation.member("site-a.test", crash=True) as a:
                await eventually(lambda: any(entry["event"] == "directory_not_current" for entry in logs))
                assert asked == [""]
                assert a.names() == ["site-a.test"]
