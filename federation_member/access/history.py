"""What the audit log holds, as a new policy can be tried on it: who asked for what, what was lent, given back and revoked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Row, select

from federation_member.access.audit import Kind
from federation_member.access.grants import action_of
from federation_member.access.model import Action
from federation_member.access.replay import applicant_of, text_of
from federation_member.access.tables import audit as entries
from federation_member.access.verdict import Applicant
from federation_member.access.world import Known, members_of
from fedkit.policy import revocation
from fedkit.policy.revocation import RevocationList

PAGE = 500  # entries read at a time


@dataclass(frozen=True)
class Recorded:
    """A decision as it was made: for whom, about what, among which members; `rule` allowed it, or it is blank."""

    number: int
    at: datetime
    lease: str
    applicant: Applicant
    action: Action
    members: tuple[Known, ...]
    rule: str
    reason: str


@dataclass(frozen=True)
class GivenBack:
    """A lease was over."""

    lease: str


Event = Recorded | GivenBack | RevocationList


def since(conn: Connection, start: datetime) -> Iterator[Event]:
    """What happened from `start` on, in order; what had been revoked before comes first."""
    revoked = select(entries).where(entries.c.kind == Kind.REVOCATION.value, entries.c.at < start)
    for row in conn.execute(revoked.order_by(entries.c.sequence)).all():
        yield from _event(conn, row)
    after = 0
    while True:
        query = select(entries).where(entries.c.at >= start, entries.c.sequence > after)
        rows = conn.execute(query.order_by(entries.c.sequence).limit(PAGE)).all()
        for row in rows:
            yield from _event(conn, row)
        if len(rows) < PAGE:
            return
        after = rows[-1].sequence


def _event(conn: Connection, row: Row[tuple[object, ...]]) -> Iterator[Event]:
    said = json.loads(row.entry)
    if row.kind == Kind.RELEASE.value:
        yield GivenBack(said["lease"])
    elif row.kind == Kind.REVOCATION.value:
        yield revocation.read(text_of(conn, said["list"]))
    elif row.kind == Kind.DECISION.value and "lacks" not in said:  # what accounts there were is not told of
        rule, reason = said.get("rule", ""), said.get("reason", "")
        members = members_of(text_of(conn, said["members"]))
        who, action = applicant_of(conn, said), action_of(said["action"])
        yield Recorded(row.sequence, row.at, said["lease"], who, action, members, rule, reason)
