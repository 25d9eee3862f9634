"""Keeps this member on the Rendezvous's list.

    start, offer changed, `rendezvous.not_announced` ─► rendezvous.announce (command, signed)
    a third of the ttl, link up, Rendezvous heard of again ─► rendezvous.alive (query)

One of them is under way at a time, and an announcement dies after `DEADLINE`: a Rendezvous that is away costs one row. While it
is away we try when its back-off allows, not more often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from federation_member.directory import store
from fedkit.clock import Clock
from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Mesh, Outcome, Peer
from fedkit.protocol import Empty
from fedkit.protocol.announcement import TooMuchToAnnounce, sign_announcement
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Alive, Announce, Announced, Announcement
from fedkit.store import Database, Tx

log = structlog.get_logger()

TTL = 60  # seconds that we ask for
DEADLINE = timedelta(seconds=10)
FIRST_RETRY = 1.0  # seconds; then the mesh says when it tries again
RETRY = 0.05  # seconds after that
LEAVE_DEADLINE = timedelta(seconds=3)
PROTOCOLS = [1]  # major versions that this member speaks
NOT_ANNOUNCED = "rendezvous.not_announced"
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
        self._serial = 0
        self._unsaid = True
        self._under_way: str | None = None
        self._look = asyncio.Event()
        self._gone = asyncio.Event()
        self._pause = TTL / 3
        self.heard = False
        self.code = ""
        self.reason = "not heard of yet"
        mesh.on_answer("rendezvous.announce", self._answered)
        mesh.on_answer("rendezvous.leave", self._left)
        mesh.on_link(self._link)
        mesh.on_peer_alive(self._peer_alive)

    def announce(self, offer: Offer) -> None:
        """Announce this offer now, and stand by it from now on."""
        self._offer = offer
        self._unsaid = True
        self._look.set()

    async def run(self) -> None:
        """Announce and stay alive until cancelled."""
        while True:
            self._look.clear()
            if self._mesh.connected and self._under_way is None:
                await (self._announce() if self._unsaid else self._stay_alive())
            try:
                async with asyncio.timeout(self._pause):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def leave(self) -> None:
        """Say that we stop, and wait until that is heard, `LEAVE_DEADLINE` at most. Call it when `run` has ended."""
        if not (self._mesh.connected and self.heard) or self.code:
            return
        deadline = self._clock() + LEAVE_DEADLINE
        self._gone.clear()
        await self._db.run(
            lambda tx: self._mesh.enqueue(tx, self._rendezvous, "rendezvous.leave", Empty(), deadline=deadline)
        )
        try:
            async with asyncio.timeout(LEAVE_DEADLINE.total_seconds()):
                await self._gone.wait()
        except TimeoutError:
            log.info("directory_leave_not_heard")

    async def _announce(self) -> None:
        self._unsaid = False
        try:
            self._under_way = await self._db.run(self._write)
        except TooMuchToAnnounce as error:
            self._unsaid = True
            self._conclude(heard=self.heard, code=error.code, reason=error.message)

    def _write(self, tx: Tx) -> str:
        now = self._clock()
        self._serial = store.next_serial(tx, now)
        announcement = describe(self._mesh.me, self._name, self._offer, self._serial, now)
        body = Announce(signed=sign_announcement(self._key, announcement), ttl=TTL)
        return self._mesh.enqueue(tx, self._rendezvous, "rendezvous.announce", body, deadline=now + DEADLINE)

    def _answered(self, tx: Tx, outcome: Outcome) -> None:
        answer = None if outcome.error else Announced.model_validate(outcome.answer)
        if answer is not None:
            self._compare(tx, answer)
        tx.after_commit(lambda: self._ended(outcome, answer))

    def _ended(self, outcome: Outcome, answer: Announced | None) -> None:
        if outcome.request_id != self._under_way:
            return  # of an earlier life of this process
        self._under_way = None
        if answer is not None:
            self._accepted(answer)
            if self._unsaid:
                self._look.set()  # the offer changed meanwhile
        elif outcome.error is not None:
            self._unsaid = True
            self._failed(outcome.error)

    async def _stay_alive(self) -> None:
        try:
            answer = await self._mesh.ask(self._rendezvous, "rendezvous.alive", Alive(serial=self._serial), Announced)
        except FedError as error:
            if error.code == NOT_ANNOUNCED:
                self._unsaid = True
                self._look.set()
            else:
                self._failed(error)
        else:
            await self._db.run(lambda tx: self._compare(tx, answer))
            self._accepted(answer)

    def _compare(self, tx: Tx, answer: Announced) -> None:
        """See whether we know what the Rendezvous knows."""
        standing = store.lock_standing(tx)
        if (answer.epoch, answer.revision) == (standing.epoch, standing.revision):
            store.confirm(tx, self._clock())
        else:
            tx.after_commit(self._on_behind)

    def _accepted(self, answer: Announced) -> None:
        self._pause = max(1, answer.ttl) / 3
        self._conclude(heard=True, code="", reason="")

    def _failed(self, error: FedError) -> None:
        heard = error.code not in UNHEARD
        again = error.details.get("next_attempt")
        if isinstance(again, float):
            self._pause = max(0.0, again - self._clock().timestamp()) + RETRY
        else:
            self._pause = TTL / 3 if heard else FIRST_RETRY
        self._conclude(heard=heard, code=error.code, reason=error.message)

    def _conclude(self, *, heard: bool, code: str, reason: str) -> None:
        if (heard, code) != (self.heard, self.code):
            log.info("directory_rendezvous", heard=heard, code=code, reason=reason)
        self.heard, self.code, self.reason = heard, code, reason
        self._on_outcome()

    def _left(self, tx: Tx, _outcome: Outcome) -> None:
        tx.after_commit(self._gone.set)

    def _link(self, up: bool) -> None:
        if up:
            self._look.set()
        else:
            self._conclude(heard=False, code="mesh.link_down", reason="there is no link to our XMPP server")

    def _peer_alive(self, peer: Peer) -> None:
        if peer.fedid == self._rendezvous.fedid:
            self._look.set()


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
