"""Revocation lists reach every member within moments, and whoever was away when it comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from federation_member.directory import revocations as known
from fedkit.errors import RemoteError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Outcome, Peer
from fedkit.mesh.node import MeshNode
from fedkit.policy import revocation
from fedkit.policy.revocation import RevocationList
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Revoke
from fedkit.store import Tx
from rendezvous import revocations as kept
from tests.component.rendezvous.federation import RENDEZVOUS, Federation, Member, eventually


class Publisher:
    """Brings lists to the Rendezvous (or to a member) as a member's process does, and hears how that ended."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.ended: dict[str, RemoteError | None] = {}
        federation.prepare = self.prepare

    def prepare(self, mesh: MeshNode) -> None:
        """What each node serves besides."""
        mesh.on_answer("rendezvous.revoke", self._answered)

    def _answered(self, _tx: Tx, outcome: Outcome) -> None:
        self.ended[outcome.request_id] = outcome.error

    async def bring(self, member: Member, text: str, peer: Peer | None = None) -> str:
        """Bring a list; returns the code of the refusal, or nothing."""
        to = peer or Peer(self.federation.rendezvous_key.fedid, RENDEZVOUS)
        request = await member.db.run(lambda tx: member.mesh.enqueue(tx, to, "rendezvous.revoke", Revoke(signed=text)))
        await eventually(lambda: request in self.ended)
        error = self.ended[request]
        return error.code if error else ""

    def make(self, key: PrivateKey, serial: int, *ids: str) -> RevocationList:
        """A list by which a key revokes these."""
        now = self.federation.clock()
        return revocation.issue(key, serial, now, dict.fromkeys(ids, now + timedelta(days=1)))


@pytest.fixture
def publisher(federation: Federation) -> Publisher:
    return Publisher(federation)


class Listener:
    """What a member was told of, and has written down."""

    def __init__(self, member: Member) -> None:
        self.heard: list[tuple[str, int]] = []
        member.directory.revocations.on_revoked(self._on_revoked)

    def _on_revoked(self, tx: Tx, heard: RevocationList) -> None:
        tx.after_commit(lambda: self.heard.append((heard.issuer.fedid, heard.serial)))


@asynccontextmanager
async def listening(federation: Federation, site: str) -> AsyncIterator[tuple[Member, Listener]]:
    """A member that is there, and what it hears."""
    async with federation.member(site) as member:
        listener = Listener(member)
        await eventually(lambda: member.directory.state().current)
        yield member, listener


ONE, TWO = "1" * 64, "2" * 64


async def test_a_list_reaches_everybody_once(federation: Federation, publisher: Publisher) -> None:
    async with (
        federation.rendezvous(),
        listening(federation, "site-a.test") as (a, at_a),
        listening(federation, "site-b.test") as (b, at_b),
    ):
        key = PrivateKey.generate()
        assert await publisher.bring(a, publisher.make(key, 1, ONE).text) == ""
        await eventually(lambda: at_a.heard == at_b.heard == [(key.fedid, 1)])
        newer = publisher.make(key, 2, ONE, TWO)
        assert await publisher.bring(b, newer.text) == ""  # whoever brings it
        await eventually(lambda: at_a.heard == at_b.heard == [(key.fedid, 1), (key.fedid, 2)])
        assert await publisher.bring(a, newer.text) == ""  # again
        assert await b.directory.revocations_of(key.fedid) == newer.text
        b.directory.set_offer(Offer(attributes={"x": 1}))
        await eventually(lambda: a.directory.find("site-b.test").offer.attributes == {"x": 1})
        assert len(at_a.heard) == 2


async def test_who_was_away_catches_up(federation: Federation, publisher: Publisher) -> None:
    keys = [PrivateKey.generate() for _ in range(30)]
    async with federation.rendezvous(), listening(federation, "site-a.test") as (a, _):
        async with listening(federation, "site-b.test") as (b, at_b):
            b.link.set_up(False)
            for key in keys:
                assert await publisher.bring(a, publisher.make(key, 1, ONE).text) == ""
            b.link.set_up(True)
            await eventually(lambda: {issuer for issuer, _ in at_b.heard} == {key.fedid for key in keys})
        async with federation.member("site-c.test") as c:  # reads the whole list
            await eventually(lambda: c.directory.state().current)
            count = select(func.count()).select_from(known.lists)
            assert await c.db.read(lambda conn: conn.execute(count).scalar_one()) == len(keys)


async def test_a_rendezvous_that_lost_its_store_is_told_again(federation: Federation, publisher: Publisher) -> None:
    asked: list[str] = []
    async with federation.member("site-a.test") as a:
        a.directory.on_whole_list(lambda _tx: asked.append("again"))
        async with federation.rendezvous():
            await eventually(lambda: a.directory.state().current)
        for file in federation.folder.glob("rendezvous.db*"):
            file.unlink()
        async with federation.rendezvous():
            a.reconnect()
            await eventually(lambda: len(asked) == 2)


async def test_an_older_list_takes_no_newers_place(federation: Federation, publisher: Publisher) -> None:
    async with federation.rendezvous(), listening(federation, "site-a.test") as (a, at_a):
        key = PrivateKey.generate()
        newest = publisher.make(key, 5, ONE)
        assert await publisher.bring(a, newest.text) == ""
        for serial in (4, 5):
            assert await publisher.bring(a, publisher.make(key, serial, TWO).text) == "rendezvous.stale_list"
        await eventually(lambda: at_a.heard == [(key.fedid, 5)])
        assert await a.directory.revocations_of(key.fedid) == newest.text


def forgeries(publisher: Publisher) -> Iterator[str]:
    """Texts that are no lists."""
    key, other = PrivateKey.generate(), PrivateKey.generate()
    header, payload, signature = publisher.make(key, 1, ONE).text.split(".")
    yield ".".join((header, publisher.make(key, 2, ONE).text.split(".")[1], signature))
    yield ".".join((publisher.make(other, 1, ONE).text.split(".")[0], payload, signature))
    yield "x"
    yield header


async def test_what_its_issuer_did_not_sign_is_believed_by_nobody(federation: Federation, publisher: Publisher) -> None:
    async with (
        federation.rendezvous() as rendezvous,
        listening(federation, "site-a.test") as (a, _),
        listening(federation, "site-b.test") as (b, at_b),
    ):
        for text in forgeries(publisher):
            assert await publisher.bring(a, text) == "policy.bad_revocation_list"
            assert (
                await publisher.bring(a, text, Peer(b.mesh.me.fedid, "fm.site-b.test")) == "policy.bad_revocation_list"
            )
        assert at_b.heard == []
        count = select(func.count()).select_from(kept.lists)
        assert await rendezvous.db.read(lambda conn: conn.execute(count).scalar_one()) == 0


async def test_a_rendezvous_invents_no_list(federation: Federation, publisher: Publisher) -> None:
    """It alters a row of its store: nobody believes that, and what they knew stands."""
    async with (
        federation.rendezvous() as rendezvous,
        listening(federation, "site-a.test") as (a, _),
        listening(federation, "site-b.test") as (b, at_b),
    ):
        key = PrivateKey.generate()
        true = publisher.make(key, 1, ONE)
        assert await publisher.bring(a, true.text) == ""
        await eventually(lambda: at_b.heard == [(key.fedid, 1)])
        lie = publisher.make(PrivateKey.generate(), 9, TWO).text
        query = kept.lists.update().where(kept.lists.c.issuer == key.fedid).values(signed=lie)
        await rendezvous.db.run(lambda tx: tx.conn.execute(query))
        other = PrivateKey.generate()
        assert await publisher.bring(a, publisher.make(other, 1, ONE).text) == ""
        await eventually(lambda: (other.fedid, 1) in at_b.heard)
        assert await b.directory.revocations_of(key.fedid) == true.text


async def test_a_member_brings_no_more_than_its_share(
    federation: Federation, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LISTS_OF_ONE_SENDER", 3)
    async with (
        federation.rendezvous(),
        listening(federation, "site-a.test") as (a, _),
        listening(federation, "site-b.test") as (b, at_b),
    ):
        codes = [await publisher.bring(a, publisher.make(PrivateKey.generate(), 1, ONE).text) for _ in range(5)]
        assert codes == ["", "", "", *["rendezvous.too_many_lists"] * 2]
        assert await publisher.bring(b, publisher.make(PrivateKey.generate(), 1, ONE).text) == ""
        await eventually(lambda: len(at_b.heard) == 4)


async def test_all_of_it_on_postgresql(federation_on_postgresql: Federation) -> None:
    federation = federation_on_postgresql
    publisher = Publisher(federation)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(federation.rendezvous())
        a, at_a = await stack.enter_async_context(listening(federation, "site-a.test"))
        b, at_b = await stack.enter_async_context(listening(federation, "site-b.test"))
        key = PrivateKey.generate()
        for serial in (1, 2):
            assert await publisher.bring(a, publisher.make(key, serial, ONE).text) == ""
        await eventually(lambda: at_a.heard[-1:] == at_b.heard[-1:] == [(key.fedid, 2)])
        assert await b.directory.revocations_of(key.fedid) == await a.directory.revocations_of(key.fedid)
