"""What members and the Rendezvous say to one another.

| operation          | kind    | body        | answer        |
|--------------------|---------|-------------|---------------|
| `rendezvous.announce` | command | Announce | Announced     | member → rendezvous: at start, and when what it offers changed
| `rendezvous.alive`    | query   | Alive       | Announced    | member → rendezvous, before each `ttl` ends; soft state, so no inbox
| `rendezvous.leave`    | command | Empty    | Empty         |
| `rendezvous.members`  | query   | MembersPage | Members    | RSM semantics (XEP-0059): survives members that come and go between pages
| `rendezvous.changes`  | query   | ChangesSince | Changes   | what changed after a revision
| `rendezvous.changed`  | command | Changes  | Empty         | rendezvous → every announced member
| `rendezvous.revoke`   | command | Revoke   | Empty         | member → rendezvous: a revocation list that is new; also member → lender
| `rendezvous.revocations` | query | RevocationsPage | Revocations | like `members`, in order of issuers

A member's description travels as the member itself signed it (`Member.signed`, a JWS whose payload is an `Announcement`),
so a Rendezvous can hide a member but not invent or alter one (`fedkit/protocol/announcement.py` reads and checks it).

Revocation lists (`fedkit/policy/revocation.py`) travel likewise, as their issuers signed them: the newest of each issuer is part of what
changes, until the last credential that it names has expired.

Every change of the list has a **revision**, counted within an **epoch** (one life of the Rendezvous's store; a new store is a
new epoch). A member that knows a revision asks for what came after it; where that cannot be told any more
(`rendezvous.unknown_revision`) it reads the whole list, then what changed since the revision of the first page.

An answer fits one stanza: a page ends early where it would pass `PAGE_OCTETS`, but holds one entry at least.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, Field, StringConstraints

from fedkit.protocol import Body
from fedkit.protocol.lending import Fedid, Offer

SIGNED_LIMIT = 40 * 1024  # octets: with envelope and base64 one entry still fits a stanza of 64 KiB
PAGE_OCTETS = SIGNED_LIMIT + 1024  # of JSON: the largest entry, and room for what stands around it

Domain = Annotated[str, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
Epoch = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Announcement(Body):
    """What a member says of itself, under its own signature."""

    fedid: Fedid
    name: Domain = Field(description="what people call it: its site's domain, such as site-b.test")
    address: Domain = Field(description="the bare JID of its component, such as fm.site-b.test")
    serial: int = Field(ge=0, description="grows with every announcement of this member; a lower one is stale")
    protocol: list[int] = Field(max_length=16, description="major protocol versions spoken")
    issued: AwareDatetime
    offer: Offer


class Announce(Body):
    """Here I am."""

    signed: str = Field(max_length=SIGNED_LIMIT, description="compact JWS of an Announcement")
    ttl: int = Field(ge=5, le=3600, description="seconds after which silence means gone")


class Alive(Body):
    """I still am, and what I announced under `serial` still holds; refused with `rendezvous.not_announced` if unknown."""

    serial: int = Field(ge=0)


class Announced(Body):
    """Heard; say so again within `ttl` seconds."""

    ttl: int = Field(description="seconds; what was asked for, or less")
    revision: int = Field(description="of the whole list: who knows a lower one asks for the changes")
    epoch: Epoch


class Member(Body):
    """One entry of the list."""

    fedid: Fedid
    signed: str = Field(max_length=SIGNED_LIMIT)
    alive: bool = Field(description="false: it left, or its ttl ended; it is forgotten after a while")
    last_seen: AwareDatetime
    revision: int


class MembersPage(Body):
    """A page request: entries after the fedid `after` (which need not exist any more), at most `max`."""

    after: str = Field(default="", max_length=40)
    max: int = Field(default=20, ge=0, le=100)


class Members(Body):
    """A page: `count` is the total (XEP-0059 §2.2), `complete` tells that nothing follows."""

    members: list[Member] = Field(max_length=100)
    count: int
    complete: bool
    revision: int = Field(description="of the whole list before this page was read")
    epoch: Epoch


class ChangesSince(Body):
    """Ask for what changed after `revision` of `epoch`; refused with `rendezvous.unknown_revision` if that is not known."""

    revision: int = Field(ge=0)
    epoch: Epoch
    max: int = Field(default=20, ge=1, le=100)


class Revoke(Body):
    """Take note of this revocation list. Refused with `rendezvous.stale_list` if a newer one of its issuer is known."""

    signed: str = Field(max_length=SIGNED_LIMIT, description="compact JWS, typ fedmesh-revocations+jws")


class Revocation(Body):
    """The newest revocation list of one issuer."""

    issuer: Fedid
    signed: str = Field(max_length=SIGNED_LIMIT)
    revision: int


class RevocationsPage(Body):
    """A page request: lists of issuers after the fedid `after` (which need not have one any more), at most `max`."""

    after: str = Field(default="", max_length=40)
    max: int = Field(default=20, ge=0, le=100)


class Revocations(Body):
    """A page: `complete` tells that nothing follows."""

    revocations: list[Revocation] = Field(max_length=100)
    complete: bool
    revision: int = Field(description="of the whole list before this page was read")
    epoch: Epoch


class Changes(Body):
    """All that changed after `since` up to `revision`, in order of revision; `more` tells to ask again from `revision`.

    A member that is gone has `alive` false. In `rendezvous.changed` the rest follows by itself once this is answered;
    a receiver that does not know `since` ignores the entries and asks for what it misses.
    """

    members: list[Member] = Field(max_length=100)
    revocations: list[Revocation] = Field(default_factory=list, max_length=100)
    since: int
    revision: int
    more: bool
    epoch: Epoch
