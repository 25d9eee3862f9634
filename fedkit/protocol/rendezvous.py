"""What members and the Rendezvous say to one another.

| operation          | kind    | body        | answer        |
|--------------------|---------|-------------|---------------|
| `rendezvous.announce` | command | Announce | Announced     | member → rendezvous, again before each `ttl` ends
| `rendezvous.leave`    | command | Empty    | Empty         |
| `rendezvous.members`  | query   | MembersPage | Members    | RSM semantics (XEP-0059): survives members that come and go between pages
| `rendezvous.changes`  | query   | ChangesSince | Changes   | what changed after a revision
| `rendezvous.changed`  | command | Changes  | Empty         | rendezvous → every announced member

A member's description travels as the member itself signed it (`Member.signed`, a JWS whose payload is an `Announcement`),
so a Rendezvous can hide a member but not invent or alter one.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from fedkit.protocol import Body
from fedkit.protocol.lending import Fedid, Offer


class Announcement(Body):
    """What a member says of itself, under its own signature."""

    fedid: Fedid
    name: str = Field(max_length=253, description="what people call it: its site's domain, such as site-b.test")
    address: str = Field(max_length=253, description="the bare JID of its component, such as fm.site-b.test")
    serial: int = Field(ge=0, description="grows with every announcement of this member; a lower one is stale")
    protocol: list[int] = Field(max_length=16, description="major protocol versions spoken")
    issued: datetime
    offer: Offer


class Announce(Body):
    """Here I am."""

    signed: str = Field(max_length=48 * 1024, description="compact JWS of an Announcement")
    ttl: int = Field(ge=5, le=3600, description="seconds after which silence means gone")


class Announced(Body):
    """Heard; announce again within `ttl` seconds."""

    ttl: int
    revision: int


class Member(Body):
    """One entry of the list."""

    fedid: Fedid
    signed: str
    alive: bool
    last_seen: datetime
    revision: int


class MembersPage(Body):
    """A page request: entries after the fedid `after` (which need not exist any more), at most `max`."""

    after: str = Field(default="", max_length=40)
    max: int = Field(default=20, ge=0, le=100)


class Members(Body):
    """A page: `count` is the total (XEP-0059 §2.2), `complete` tells that nothing follows."""

    members: list[Member]
    count: int
    complete: bool
    revision: int


class ChangesSince(Body):
    """Ask for what changed after `revision`."""

    revision: int = Field(ge=0)
    max: int = Field(default=20, ge=1, le=100)


class Changes(Body):
    """Changes in order of revision; `more` tells to ask again from `revision`. A member that is gone has `alive` false."""

    members: list[Member]
    revision: int
    more: bool
