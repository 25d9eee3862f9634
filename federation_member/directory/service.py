"""The member's directory: who is there, what they offer, and how much that knowledge is worth.

    Announcer ── rendezvous.announce ──► Rendezvous ── rendezvous.changed ──► Follower ──► tables ──► members()
                                                                                             │
    without a Rendezvous: the last known list, and `state()` says of when ◄──────────────────┘

`members()` reads a picture in memory; after each commit that may have changed the tables, only the rows that changed are read.
We ourselves are always in it, whatever the Rendezvous says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog

from federation_member.directory import model, store
from federation_member.directory.announcer import Announcer, describe
from federation_member.directory.follower import Follower
from federation_member.directory.model import DirectoryState, KnownMember
from federation_member.directory.revocations import Revocations, known_list
from fedkit.clock import Clock, now
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Mesh, Peer
from fedkit.protocol.announcement import recall_announcement
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Announcement
from fedkit.store import Database, Tx

log = structlog.get_logger()

UNLISTED_GRACE = timedelta(
    minutes=5
)  # for a member that a Rendezvous no longer names, perhaps because it lost its store


class Directory:
    """Knows the members; enter `running` after the mesh runs, so that leaving is still heard."""

    def __init__(
        self,
        db: Database,
        mesh: Mesh,
        key: PrivateKey,
        name: str,
        rendezvous: Peer | None,
        clock: Clock = now,
    ) -> None:
        self._db = db
        self._mesh = mesh
        self._name = name
        self._rendezvous = rendezvous
        self._clock = clock
        self._offer = Offer()
        self._callbacks: list[Callable[[], None]] = []
        self._told: object = None
        self._look = asyncio.Event()
        self._standing: store.Standing | None = None
        self._known: dict[str, tuple[store.Row, Announcement]] = {}
        self._on_whole: list[Callable[[Tx], None]] = []
        self.revocations = Revocations(mesh, clock)
        self._announcer: Announcer | None = None
        self._follower: Follower | None = None
        if rendezvous is not None:
            self._follower = Follower(
                db, mesh, rendezvous, clock, self.revocations, self._look.set, self._whole_list_read
            )
            self._announcer = Announcer(db, mesh, key, name, rendezvous, clock, self._look.set, self._follower.catch_up)

    def members(self) -> list[KnownMember]:
        """Everybody known, ourselves first, the gone ones too; may be called from any thread."""
        now = self._clock()
        me = describe(self._mesh.me, self._name, self._offer, 0, now)
        others = (
            self._other(row, what, now) for fedid, (row, what) in sorted(self._known.items()) if fedid != me.fedid
        )
        return [KnownMember(me, alive=True, last_seen=now, is_self=True), *others]

    def find(self, text: str) -> KnownMember:
        """Return the member of that name, address or fedid; raise `UnknownMember` or `AmbiguousMember`."""
        return model.find(self.members(), text)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Be told on the event loop that a member came, went or offers something else, or that `state` changed."""
        self._callbacks.append(callback)

    def on_whole_list(self, callback: Callable[[Tx], None]) -> None:
        """Be called in the transaction that ends a reading of the whole list: the Rendezvous may know nothing of us any more."""
        self._on_whole.append(callback)

    async def revocations_of(self, issuer: str) -> str | None:
        """The newest revocation list of an issuer that is known here, as it signed it."""
        return await self._db.read(lambda conn: known_list(conn, issuer))

    def _whole_list_read(self, tx: Tx) -> None:
        for callback in self._on_whole:
            callback(tx)

    def set_offer(self, offer: Offer) -> None:
        """Announce this offer from now on, at once if it is another one."""
        if offer == self._offer:
            return
        self._offer = offer
        if self._announcer is not None:
            self._announcer.announce(offer)
        self._look.set()

    def state(self) -> DirectoryState:
        """Say whether the Rendezvous is reachable, and of when the list is."""
        standing = self._standing
        as_of = None
        if standing is not None and standing.as_of is not None:
            as_of = datetime.fromtimestamp(standing.as_of, UTC)
        with_what = f"working with the list of {as_of:%F %H:%M:%S} UTC" if as_of else "no list is known yet"
        if self._rendezvous is None or self._announcer is None:
            message = f"No Rendezvous is configured; {with_what}."
            return DirectoryState(None, False, False, as_of, "", message)
        heard, code, reason = self._announcer.heard, self._announcer.code, self._announcer.reason
        current = heard and not code and standing is not None and bool(standing.epoch)
        message = "The list is current."
        if not heard:
            message = f"The Rendezvous {self._rendezvous.address} is not reachable ({reason}); {with_what}."
        elif code:
            message = f"The Rendezvous {self._rendezvous.address} does not list us ({reason}); {with_what}."
        elif not current:
            message = f"The list of the Rendezvous {self._rendezvous.address} is being read; {with_what}."
        return DirectoryState(self._rendezvous, heard, current, as_of, code, message)

    def freshness(self) -> str:
        """`fresh`, or since when and why the list is old."""
        state = self.state()
        return "fresh" if state.current else state.message

    def _other(self, row: store.Row, announcement: Announcement, now: datetime) -> KnownMember:
        return KnownMember(
            announcement,
            alive=_alive(row, now),
            last_seen=datetime.fromtimestamp(row.last_seen, UTC),
            backing_off=self._mesh.backing_off(Peer(row.fedid, announcement.address)),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Directory]:
        """Know the last list at once, follow the Rendezvous while the context is open, and leave it at the end."""
        rendezvous = self._rendezvous.fedid if self._rendezvous else ""
        await self._db.run(lambda tx: store.begin(tx, rendezvous))
        await self._read()
        try:
            async with asyncio.TaskGroup() as tasks:
                loops = [tasks.create_task(self._publish())]
                if self._announcer is not None and self._follower is not None:
                    loops += [tasks.create_task(self._announcer.run()), tasks.create_task(self._follower.run())]
                try:
                    yield self
                finally:
                    for loop in loops:
                        loop.cancel()
        finally:
            if self._announcer is not None:
                await self._announcer.leave()

    async def _publish(self) -> None:
        while True:
            await self._look.wait()
            self._look.clear()
            await self._read()
            picture = self._picture()
            if picture != self._told:
                self._told = picture
                for callback in self._callbacks:
                    callback()

    def _picture(self) -> object:
        """What a change of is worth telling: not that the list was confirmed once more."""
        state = self.state()
        stamps = {fedid: row.stamp for fedid, (row, _) in self._known.items()}
        return stamps, self._offer, state.reachable, state.current, state.code

    async def _read(self) -> None:
        """Read the rows whose stamp is not the one that we have read."""
        self._standing = await self._db.read(store.read_standing)
        stamps = await self._db.read(store.read_stamps)
        known = {fedid: kept for fedid, kept in self._known.items() if fedid in stamps}
        changed = [fedid for fedid, stamp in stamps.items() if fedid not in known or known[fedid][0].stamp != stamp]
        if changed:
            for row in await self._db.read(lambda conn: store.read_rows(conn, changed)):
                try:
                    known[row.fedid] = row, recall_announcement(row.signed)
                except ValueError as error:
                    log.warning("directory_row_unreadable", fedid=row.fedid, reason=str(error))
        self._known = known


def _alive(row: store.Row, now: datetime) -> bool:
    listed = row.unlisted is None or now.timestamp() - row.unlisted < UNLISTED_GRACE.total_seconds()
    return row.alive and listed
