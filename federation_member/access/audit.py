"""The audit log: every decision with what it rests on, each entry hashed to the one before.

    hash(n) = SHA-256(hash(n-1) LF entry(n))       entry: canonical JSON with its number, time and kind

It is written in the transaction of what it tells, so neither is there without the other. Texts that entries name by their SHA-256
stand beside it. Whoever keeps one hash elsewhere (`fed audit verify` prints the last) can tell later that nothing
before it was changed. The chain cannot tell that its end was cut off; the kept hash can.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from federation_member.access.tables import audit, audit_head, texts
from fedkit.store import Tx

NOTHING = "0" * 64  # the hash before the first entry
PAGE = 500  # entries read at a time


class Kind(StrEnum):
    """What an entry tells."""

    POLICY = "policy"  # another policy is in force
    DECISION = "decision"  # somebody asked
    RENEWAL = "renewal"  # a grant was proved again, or could not be
    RELEASE = "release"
    REVOCATION = "revocation"  # an issuer's list was taken in
    USAGE = "usage"  # what a lease holds changed: a spell began or ended


@dataclass(frozen=True)
class Entry:
    """One entry; `said` is all that it tells."""

    sequence: int
    at: datetime
    kind: Kind
    said: dict[str, Any]
    hash: str


@dataclass(frozen=True)
class Verification:
    """Whether the chain holds: up to which entry, the hash there, and what is wrong with the next."""

    entries: int
    hash: str
    broken_at: int | None = None
    problem: str = ""


def canonical(value: Any) -> str:
    """JSON in one form only: keys sorted, no blanks."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def lock(tx: Tx) -> None:
    """Let nobody else decide until this transaction ends: what is counted now is still so when it is written."""
    tx.conn.execute(select(audit_head.c.id).where(audit_head.c.id == 1).with_for_update()).one()


def append(tx: Tx, at: datetime, kind: Kind, said: Mapping[str, Any]) -> int:
    """Write an entry; returns its number."""
    head = tx.conn.execute(select(audit_head).where(audit_head.c.id == 1).with_for_update()).one()
    sequence = head.sequence + 1
    entry = canonical({"sequence": sequence, "at": at.isoformat(timespec="microseconds"), "kind": kind.value, **said})
    digest = _hash(head.hash, entry)
    tx.conn.execute(insert(audit).values(sequence=sequence, at=at, kind=kind.value, entry=entry, hash=digest))
    tx.conn.execute(update(audit_head).where(audit_head.c.id == 1).values(sequence=sequence, hash=digest))
    return int(sequence)


def keep(tx: Tx, said: Iterable[str]) -> list[str]:
    """Keep texts beside the log, each once; returns their names."""
    by_name = {sha256(text): text for text in said}
    known = set(tx.conn.execute(select(texts.c.sha256).where(texts.c.sha256.in_(by_name))).scalars())
    for name, text in by_name.items():
        if name not in known:
            tx.conn.execute(insert(texts).values(sha256=name, text=text))
    return list(by_name)


def text_of(conn: Connection, name: str) -> str | None:
    """A text that an entry names."""
    return conn.execute(select(texts.c.text).where(texts.c.sha256 == name)).scalar()


def sha256(text: str) -> str:
    """The name of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def read(conn: Connection, sequence: int) -> Entry | None:
    """One entry."""
    row = conn.execute(select(audit).where(audit.c.sequence == sequence)).one_or_none()
    return None if row is None else _entry(row)


def page(conn: Connection, *, before: int | None, limit: int, kind: Kind | None = None) -> list[Entry]:
    """At most `limit` entries before a number, newest first."""
    query = select(audit).order_by(audit.c.sequence.desc()).limit(limit)
    query = query if before is None else query.where(audit.c.sequence < before)
    query = query if kind is None else query.where(audit.c.kind == kind.value)
    return [_entry(row) for row in conn.execute(query)]


def entries(conn: Connection) -> Iterator[Entry]:
    """All entries, oldest first."""
    return map(_entry, _rows(conn))


def verify(conn: Connection) -> Verification:
    """Walk the chain from its beginning, and look at the texts that it names."""
    last, previous = 0, NOTHING
    for row in _rows(conn):
        problem = _problem(conn, row, last + 1, previous)
        if problem is not None:
            return Verification(last, previous, last + 1, problem)
        last, previous = row.sequence, row.hash
    head = conn.execute(select(audit_head).where(audit_head.c.id == 1)).one()
    if (head.sequence, head.hash) != (last, previous):
        return Verification(last, previous, last + 1, f"entries {last + 1} to {head.sequence} are gone")
    return Verification(last, previous)


def _rows(conn: Connection) -> Iterator[Row[Any]]:
    after = 0
    while True:
        query = select(audit).where(audit.c.sequence > after).order_by(audit.c.sequence).limit(PAGE)
        rows = conn.execute(query).all()
        yield from rows
        if len(rows) < PAGE:
            return
        after = rows[-1].sequence


def _problem(conn: Connection, row: Row[Any], expected: int, previous: str) -> str | None:
    """What is wrong with this entry, if anything is."""
    if row.sequence != expected:
        return f"entry {expected} is gone"
    if _hash(previous, row.entry) != row.hash:
        return "its text is not the one that was hashed, or an entry before it was changed together with its hash"
    said = json.loads(row.entry)
    stands = {"sequence": row.sequence, "at": row.at.isoformat(timespec="microseconds"), "kind": row.kind}
    if any(said.get(name) != value for name, value in stands.items()):
        return "its columns do not say what its text says"
    for name in named(said):
        text = text_of(conn, name)
        if text is None or sha256(text) != name:
            return f"the text {name} that it names is gone or was changed"
    return None


def named(said: Mapping[str, Any]) -> Iterator[str]:
    """The texts that an entry names."""
    yield from said.get("credentials", ())
    yield from (said[field] for field in ("policy", "members", "list") if said.get(field))


def _hash(previous: str, entry: str) -> str:
    return hashlib.sha256(f"{previous}\n{entry}".encode()).hexdigest()


def _entry(row: Row[Any]) -> Entry:
    return Entry(row.sequence, row.at, Kind(row.kind), json.loads(row.entry), row.hash)
