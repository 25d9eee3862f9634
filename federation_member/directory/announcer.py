"""Keeps this member on the Rendezvous's list.

It announces itself at a third of the ttl that the Rendezvous granted, and at once when the offer changed, our link came up,
or the Rendezvous was heard of again. One announcement is under way at a time and each dies after `DEADLINE`, so a
Rendezvous that is away costs one row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from federation_member.directory import store
from fedkit.clock import Clock
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Mesh, Outcome, Peer
from fedkit.protocol import Empty
from fedkit.protocol.announcement import TooMuchToAnnounce, sign_announcement
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Announce, Announced, Announcement
from fedkit.store import Database, Tx

log = structlog.get_logger()

TTL = 60  # seconds that we ask for
DEADLINE = timedelta(seconds=10)
LEAVE_DEADLINE = timedelta(seconds=3)
PROTOCOLS = [1]  # major versions that this member speaks
UNHEARD = {"mesh.no_answer", "mesh.unreachable", "mesh.link_down"}  # the Rendezvous itself did not say that


class Announcer:
    """Announces `offer` at `rendezvous`.

    `on_outcome` is called after each answer, `on_behind` when an answer names a revision that we do not know yet.
    """

    def __init__(
        self,
        db: Database,
        mesh: Mesh,
        key: PrivateKey,
        name: str,
        rendezvous: Peer,
        clock: Clock,
        on_outcome: Callable[[], None],
        on_behind: Callable[[], None],
    ) -> None:
        self._db = db
        self._mesh = mesh
        self._key = key
        self._name = name
        self._rendezvous = rendezvous
        self._clock = clock
        self._on_outcome = on_outcome
        self._on_behind = on_behind
        self._offer = Offer()
        self._now = asyncio.Event()
        self._under_way: str | None = None
        self._again = False
        self._left_event = asyncio.Event()
        self._ttl = TTL
        self.heard = False
        self.code = ""
        self.reason = "not heard of yet"
        mesh.on_answer("rendezvous.announce", self._answered)
        mesh.on_answer("rendezvous.leave", self._left)
        mesh.on_link(self._link)
        mesh.on_peer_alive(self._peer_alive)

    def announce(self, offer: Offer | None = None) -> None:
        """Announce ourselves now, with this offer from now on."""
        if offer is not None:
            self._offer = offer
        self._again = True
        self._now.set()

    async def run(self) -> None:
        """Announce until cancelled."""
        while True:
            self._now.clear()
            if self._mesh.connected and self._under_way is None:
                await self._send()
            try:
                async with asyncio.timeout(self._ttl / 3):
                    await self._now.wait()
            except TimeoutError:
                continue

    async def leave(self) -> None:
        """Say that we stop, and wait until that is heard, `LEAVE_DEADLINE` at most. Call it when `run` has ended."""
        if not (self._mesh.connected and self.heard):
            return
        deadline = self._clock() + LEAVE_DEADLINE
        self._left_event.clear()
        await self._db.run(
            lambda tx: self._mesh.enqueue(tx, self._rendezvous, "rendezvous.leave", Empty(), deadline=deadline)
        )
        try:
            async with asyncio.timeout(LEAVE_DEADLINE.total_seconds()):
                await self._left_event.wait()
        except TimeoutError:
            log.info("directory_leave_not_heard")

    async def _send(self) -> None:
        self._again = False
        try:
            self._under_way = await self._db.run(self._write)
        except TooMuchToAnnounce as error:
            self._conclude(heard=self.heard, code=error.code, reason=error.message)

    def _write(self, tx: Tx) -> str:
        now = self._clock()
        announcement = describe(self._mesh.me, self._name, self._offer, store.next_serial(tx, now), now)
        body = Announce(signed=sign_announcement(self._key, announcement), ttl=TTL)
        return self._mesh.enqueue(tx, self._rendezvous, "rendezvous.announce", body, deadline=now + DEADLINE)

    def _answered(self, tx: Tx, outcome: Outcome) -> None:
        error = outcome.error
        if error is None:
            answer = Announced.model_validate(outcome.answer)
            standing = store.lock_standing(tx)
            if (answer.epoch, answer.revision) == (standing.epoch, standing.revision):
                store.confirm(tx, self._clock())
            else:
                tx.after_commit(self._on_behind)
            tx.after_commit(lambda: self._accepted(answer.ttl))
        else:
            heard = error.code not in UNHEARD
            tx.after_commit(lambda: self._conclude(heard=heard, code=error.code, reason=error.message))
        tx.after_commit(lambda: self._ended(outcome.request_id))

    def _accepted(self, ttl: int) -> None:
        self._ttl = max(1, ttl)
        self._conclude(heard=True, code="", reason="")

    def _conclude(self, *, heard: bool, code: str, reason: str) -> None:
        if (heard, code) != (self.heard, self.code):
            log.info("directory_rendezvous", heard=heard, code=code, reason=reason)
        self.heard, self.code, self.reason = heard, code, reason
        self._on_outcome()

    def _ended(self, request_id: str) -> None:
        if request_id == self._under_way:
            self._under_way = None
            if self._again:
                self._now.set()

    def _left(self, tx: Tx, _outcome: Outcome) -> None:
        tx.after_commit(self._left_event.set)

    def _link(self, up: bool) -> None:
        if up:
            self.announce()
        else:
            self._conclude(heard=False, code="mesh.link_down", reason="there is no link to our XMPP server")

    def _peer_alive(self, peer: Peer) -> None:
        if peer.fedid == self._rendezvous.fedid:
            self.announce()


def describe(me: Peer, name: str, offer: Offer, serial: int, issued: datetime) -> Announcement:
    """Return what a member says of itself."""
    return Announcement(
        fedid=me.fedid,
        name=name,
        address=me.address,
        serial=serial,
        protocol=PROTOCOLS,
        issued=issued,
        offer=offer,
    )
