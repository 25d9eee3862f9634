"""What the Rendezvous knows of a member, and the rules by which it believes an announcement. No I/O.

    announce ──► alive ── ttl ends, leave ──► gone (still listed, `alive` false) ── KEEP ──► forgotten
                  ▲                                │
                  └────────── announce ────────────┘

Gone members stay listed for `KEEP`, so that a member which was away for a night still learns from the changes who left.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedkit.mesh.api import Peer
from fedkit.protocol.announcement import SignedAnnouncement
from fedkit.protocol.rendezvous import Member
from rendezvous.errors import NotAllowed, NotYours, StaleAnnouncement

KEEP = timedelta(days=1)
SKEW = timedelta(minutes=5)  # how far the clocks of two sites may stand apart
EVERYBODY = "*"


@dataclass(frozen=True)
class Entry:
    """One member as the list holds it. `expires` is when silence means gone; `revision` is that of its last change."""

    fedid: str
    signed: str
    alive: bool
    last_seen: datetime
    revision: int

    def to_member(self) -> Member:
        """Return what others are told of it."""
        return Member(
            fedid=self.fedid,
            signed=self.signed,
            alive=self.alive,
            last_seen=self.last_seen,
            revision=self.revision,
        )


@dataclass(frozen=True)
class AllowList:
    """Who may take part: fedids, or `*` for everybody who can prove a key."""

    fedids: Collection[str]

    def require(self, sender: Peer) -> None:
        """Raise `NotAllowed` for a sender that is not listed."""
        if EVERYBODY not in self.fedids and sender.fedid not in self.fedids:
            raise NotAllowed(
                f"This Rendezvous does not list {sender.fedid}; ask its operator to add it to [rendezvous] allow.",
                fedid=sender.fedid,
            )


def check_announcement(announced: SignedAnnouncement, sender: Peer, now: datetime) -> None:
    """Raise unless the announcement is the sender's own, about its own address, and made just now."""
    announcement = announced.announcement
    if announcement.fedid != sender.fedid:
        raise NotYours(f"{sender.fedid} announced {announcement.fedid}; a member announces itself only.")
    if announcement.address != sender.address:
        raise NotYours(f"The announcement names {announcement.address}, but it came from {sender.address}.")
    if abs(announcement.issued - now) > SKEW:
        raise StaleAnnouncement(
            f"The announcement was issued at {announcement.issued:%FT%TZ} and it is {now:%FT%TZ} here; set the clock.",
            now=now.isoformat(),
        )
