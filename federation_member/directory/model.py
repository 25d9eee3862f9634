"""What the directory says of members and of itself. No I/O."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from federation_member.directory.errors import AmbiguousMember, UnknownMember
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import Offer
from fedkit.protocol.rendezvous import Announcement


@dataclass(frozen=True)
class KnownMember:
    """A member as it described itself, and whether the Rendezvous heard of it lately.

    `last_seen` is when the Rendezvous last heard of it, as of the last change that it told us; `backing_off` until when we
    ourselves do not try it, because it did not answer us.
    """

    announcement: Announcement
    alive: bool
    last_seen: datetime
    is_self: bool = False
    backing_off: datetime | None = None

    @property
    def fedid(self) -> str:
        """Its identity."""
        return self.announcement.fedid

    @property
    def name(self) -> str:
        """What people call it: its site's domain."""
        return self.announcement.name

    @property
    def address(self) -> str:
        """The bare JID of its component."""
        return self.announcement.address

    @property
    def offer(self) -> Offer:
        """What it lends."""
        return self.announcement.offer

    @property
    def peer(self) -> Peer:
        """The member as one to talk to."""
        return Peer(self.fedid, self.address)


@dataclass(frozen=True)
class DirectoryState:
    """How much the list is worth. `message` says it to a person, `code` is that of a refusal or failure.

    `as_of` is when the list last was what the Rendezvous held; None if that never was.
    """

    rendezvous: Peer | None
    reachable: bool
    current: bool
    as_of: datetime | None
    code: str
    message: str


def find(members: Sequence[KnownMember], text: str) -> KnownMember:
    """Return the member of that fedid, address or name; a living one wins over one that is gone.

    Raises `UnknownMember` with the nearest name, `AmbiguousMember` where two living members go by it.
    """
    wanted = text.strip().lower()
    for member in members:
        if member.fedid == wanted:
            return member
    matching = [m for m in members if wanted in (m.address, m.name)]
    living = [m for m in matching if m.alive]
    candidates = living or matching
    if not candidates:
        raise _unknown(members, text)
    if len(candidates) > 1:
        fedids = sorted(m.fedid for m in candidates)
        raise AmbiguousMember(f"{text!r} is {len(fedids)} members; say one of {', '.join(fedids)}.", fedids=fedids)
    return candidates[0]


def _unknown(members: Sequence[KnownMember], text: str) -> UnknownMember:
    names = sorted({name for m in members for name in (m.name, m.address, m.fedid)})
    near = difflib.get_close_matches(text.strip().lower(), names, 1)
    known = ", ".join(sorted({m.name for m in members})[:10])
    hint = f"did you mean {near[0]}?" if near else f"known: {known or 'nobody yet'}"
    return UnknownMember(f"No member {text!r} is known; {hint}", nearest=near[0] if near else None)
