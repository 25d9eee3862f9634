"""What the Rendezvous answers, and what it tells by itself (`fedkit/protocol/rendezvous.py`, docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog

from fedkit.clock import Clock
from fedkit.mesh.api import Mesh, Outcome, Request
from fedkit.policy.revocation import read as read_list
from fedkit.protocol import Empty
from fedkit.protocol.announcement import read_announcement
from fedkit.protocol.rendezvous import (
    Alive,
    Announce,
    Announced,
    Changes,
    ChangesSince,
    Members,
    MembersPage,
    Revocations,
    RevocationsPage,
    Revoke,
)
from fedkit.store import Database, Tx
from rendezvous import feed, revocations, store
from rendezvous.config import RendezvousSection
from rendezvous.model import AllowList, check_announcement

log = structlog.get_logger()

NOTICE_DEADLINE = timedelta(seconds=30)  # a subscriber that does not answer for so long waits for its next sign of life
NOTICE_ENTRIES = 50  # in one notice, where they fit
SUBSCRIBERS_AT_ONCE = 100  # told in one transaction, so that nobody else waits for it


class Wire:
    """Serves the operations `rendezvous.*` on a mesh.

    `on_news` is called after a commit that changed the list, `on_told` after one that ended a notice.
    """

    def __init__(
        self,
        db: Database,
        mesh: Mesh,
        config: RendezvousSection,
        clock: Clock,
        on_news: Callable[[], None],
        on_told: Callable[[], None],
    ) -> None:
        self._db = db
        self._mesh = mesh
        self._config = config
        self._clock = clock
        self._on_news = on_news
        self._on_told = on_told
        self._allowed = AllowList(frozenset(config.allow))
        mesh.on_command("rendezvous.announce", Announce, self._announce)
        mesh.on_query("rendezvous.alive", Alive, self._alive)
        mesh.on_command("rendezvous.leave", Empty, self._leave)
        mesh.on_query("rendezvous.members", MembersPage, self._members)
        mesh.on_query("rendezvous.changes", ChangesSince, self._changes)
        mesh.on_command("rendezvous.revoke", Revoke, self._revoke)
        mesh.on_query("rendezvous.revocations", RevocationsPage, self._revocations)
        mesh.on_answer("rendezvous.changed", self._notice_ended)

    def _announce(self, tx: Tx, request: Request[Announce]) -> Announced:
        self._allowed.require(request.sender)
        now = self._clock()
        heard = read_announcement(request.body.signed)
        check_announcement(heard, request.sender, now)
        ttl = min(request.body.ttl, self._config.max_ttl)
        state, news = store.announce(tx, heard, ttl, now, self._config.max_members)
        if news:
            tx.after_commit(self._on_news)
        return Announced(ttl=ttl, revision=state.revision, epoch=state.epoch)

    async def _alive(self, request: Request[Alive]) -> Announced:
        self._allowed.require(request.sender)
        fedid, serial = request.sender.fedid, request.body.serial
        state, ttl = await self._db.run(lambda tx: store.still_alive(tx, fedid, serial, self._clock()))
        return Announced(ttl=ttl, revision=state.revision, epoch=state.epoch)

    def _leave(self, tx: Tx, request: Request[Empty]) -> Empty:
        self._allowed.require(request.sender)
        if store.leave(tx, request.sender.fedid, request.issued):
            log.info("member_left", fedid=request.sender.fedid)
            tx.after_commit(self._on_news)
        return Empty()

    async def _members(self, request: Request[MembersPage]) -> Members:
        self._allowed.require(request.sender)
        body = request.body
        return await self._db.read(lambda conn: store.members_page(conn, body.after, body.max))

    async def _changes(self, request: Request[ChangesSince]) -> Changes:
        self._allowed.require(request.sender)
        body = request.body
        return await self._db.read(lambda conn: feed.changes_page(conn, body.epoch, body.revision, body.max))

    def _revoke(self, tx: Tx, request: Request[Revoke]) -> Empty:
        self._allowed.require(request.sender)
        heard = read_list(request.body.signed)
        maximum = self._config.max_revocations
        if revocations.note(tx, heard, request.sender.fedid, self._clock(), maximum):
            log.info("revoked", issuer=heard.issuer.fedid, serial=heard.serial, credentials=len(heard.revoked))
            tx.after_commit(self._on_news)
        return Empty()

    async def _revocations(self, request: Request[RevocationsPage]) -> Revocations:
        self._allowed.require(request.sender)
        body = request.body
        return await self._db.read(lambda conn: revocations.page(conn, body.after, body.max))

    def tell(self, tx: Tx) -> bool:
        """Begin notices to subscribers that do not know the latest revision; tell whether more may be waiting."""
        state = store.lock_state(tx)
        behind = store.subscribers_to_tell(tx, state, SUBSCRIBERS_AT_ONCE)
        pages: dict[int, Changes] = {}
        deadline = self._clock() + NOTICE_DEADLINE
        for subscriber in behind:
            since = subscriber.told
            if since not in pages:
                pages[since] = feed.changes_since(tx.conn, state, since, NOTICE_ENTRIES)
            request_id = self._mesh.enqueue(tx, subscriber.peer, "rendezvous.changed", pages[since], deadline=deadline)
            store.notice_sent(tx, subscriber.peer.fedid, request_id)
        return len(behind) == SUBSCRIBERS_AT_ONCE

    def _notice_ended(self, tx: Tx, outcome: Outcome) -> None:
        if outcome.error is not None:
            log.info("member_not_told", fedid=outcome.peer.fedid, code=outcome.error.code)
        told = None if outcome.error else int(outcome.sent["revision"])
        store.notice_ended(tx, outcome.peer.fedid, outcome.request_id, told)
        tx.after_commit(self._on_told)
