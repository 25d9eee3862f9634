"""Members without a mesh: keys, and announcements that they signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, select

from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.protocol.announcement import SignedAnnouncement, read_announcement, sign_announcement
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Announcement, Changes, Members
from fedkit.store import Database, Tx
from rendezvous import feed, store

T = TypeVar("T")
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@dataclass
class ManualClock:
    """A clock that stands until it is moved."""

    time: datetime = NOON

    def __call__(self) -> datetime:
        return self.time

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.time += timedelta(seconds=seconds)


@dataclass
class Site:
    """Somebody who can announce itself."""

    name: str
    key: PrivateKey = field(default_factory=PrivateKey.generate)
    serial: int = 0

    @property
    def peer(self) -> Peer:
        return Peer(self.key.fedid, f"fm.{self.name}")

    def describe(self, offer: Offer | None = None, issued: datetime = NOON) -> Announcement:
        """Say something new of itself."""
        self.serial += 1
        return Announcement(
            fedid=self.key.fedid,
            name=self.name,
            address=self.peer.address,
            serial=self.serial,
            protocol=[1],
            issued=issued,
            offer=offer or Offer(),
        )

    def announce(self, offer: Offer | None = None, issued: datetime = NOON) -> SignedAnnouncement:
        """Say it, signed."""
        return read_announcement(sign_announcement(self.key, self.describe(offer, issued)))


@dataclass
class Book:
    """The list, without an event loop."""

    db: Database
    clock: ManualClock = field(default_factory=ManualClock)

    def write(self, function: Callable[[Tx], T]) -> T:
        """Run a transaction."""
        with self.db.engine.begin() as conn:
            return function(Tx(conn))

    def read(self, function: Callable[[Connection], T]) -> T:
        """Read."""
        with self.db.engine.connect() as conn:
            return function(conn)

    def announce(self, site: Site, offer: Offer | None = None, ttl: int = 60) -> int:
        """Announce a site and return the list's revision."""
        heard = site.announce(offer, self.clock())
        return self.write(lambda tx: store.announce(tx, heard, ttl, self.clock(), 1000))[0].revision

    def listed(self) -> dict[str, bool]:
        """Who is listed, and whether alive."""
        rows = self.read(lambda conn: conn.execute(select(store.entries.c.fedid, store.entries.c.alive)).all())
        return {row.fedid: bool(row.alive) for row in rows}

    def walk(self, maximum: int, between: Callable[[], None]) -> tuple[Members, dict[str, bool]]:
        """Read the whole list page by page; return the first page and what all of them said."""
        first = page = self.read(lambda conn: store.members_page(conn, "", maximum))
        seen = {member.fedid: member.alive for member in page.members}
        while not page.complete:
            between()
            after = max(seen)
            page = self.read(partial(store.members_page, after=after, maximum=maximum))
            seen |= {member.fedid: member.alive for member in page.members}
        return first, seen

    def changes(self, since: int, maximum: int) -> Iterator[Changes]:
        """Read what changed, page by page."""
        more = True
        while more:
            page = self.read(partial(feed.changes_page, epoch="0" * 32, since=since, maximum=maximum))
            yield page
            since, more = page.revision, page.more
