"""Members without a mesh: keys, and announcements that they signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.protocol.announcement import SignedAnnouncement, read_announcement, sign_announcement
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Announcement

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
