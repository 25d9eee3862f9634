"""Independent readings of accounts, for tests to compare: straight from the tables, and from the audit log alone.

They share nothing with the code under test but the names of columns.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from sqlalchemy import Connection, text

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Amounts = tuple[Fraction, Fraction, Fraction, Fraction]
"""Hours, and hours times vCPU, GiB of memory and GiB of disk."""


@dataclass(frozen=True)
class Read:
    """One spell."""

    lease: str
    number: int
    who: tuple[str, str, str, str]  # the other member, project, user, kind
    sizes: tuple[int, int, int]
    began: datetime
    ended: datetime | None


def from_book(conn: Connection, role: str) -> set[Read]:
    """What a book says."""
    rows = conn.execute(text("SELECT * FROM usage WHERE role = :role"), {"role": role}).mappings()
    return {
        Read(
            row["lease_id"],
            row["number"],
            (row["member"], row["project"], row["owner"], row["kind"]),
            (row["vcpu"], row["ram_mb"], row["disk_gb"]),
            _time(row["began"]),
            None if row["ended"] is None else _time(row["ended"]),
        )
        for row in rows
    }


def from_audit_log(conn: Connection) -> set[Read]:
    """What the lender's audit log says was lent: each beginning and end by itself."""
    open_: dict[tuple[str, int], Read] = {}
    ended: set[Read] = set()
    for (entry,) in conn.execute(text("SELECT entry FROM access_audit WHERE kind = 'usage' ORDER BY sequence")):
        said = json.loads(entry)
        key, at = (said["lease"], said["spell"]), datetime.fromisoformat(said["at"])
        sizes = (said["sizes"]["vcpu"], said["sizes"]["ram_mb"], said["sizes"]["disk_gb"])
        who = (said["member"], said["project"], said["user"], said["lends"])
        if said["event"] == "began":
            assert key not in open_
            open_[key] = Read(*key, who, sizes, at, None)
        else:
            spell = open_.pop(key)
            assert (spell.who, spell.sizes) == (who, sizes)
            ended.add(replace(spell, ended=at))
    return ended | set(open_.values())


def add_up(
    spells: Iterable[Read], begin: datetime, end: datetime, *, daily: bool = False
) -> dict[tuple[object, ...], Amounts]:
    """Sums for each day (if wanted), member, project, user and kind, by the slowest and plainest way."""
    sums: dict[tuple[object, ...], list[Fraction]] = defaultdict(lambda: [Fraction(0)] * 4)
    for spell in spells:
        for first, last in _days(begin, end) if daily else [(begin, end)]:
            hours = Fraction(
                (min(spell.ended or end, last) - max(spell.began, first)) // timedelta(microseconds=1), 3_600_000_000
            )
            if hours > 0:
                vcpu, ram_mb, disk_gb = spell.sizes
                parts = (hours, hours * vcpu, hours * ram_mb / 1024, hours * disk_gb)
                key = (first.date() if daily else None, *spell.who)
                sums[key] = [old + new for old, new in zip(sums[key], parts, strict=True)]
    return {key: (hours, vcpu, ram, disk) for key, (hours, vcpu, ram, disk) in sums.items()}


def _days(begin: datetime, end: datetime) -> Iterable[tuple[datetime, datetime]]:
    first = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    while first < end:
        following = first + timedelta(days=1)
        yield max(begin, first), min(end, following)
        first = following


def _time(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)
