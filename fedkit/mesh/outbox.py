"""What goes out: commands written down in the transaction of the state change that caused them.

A row is deleted by the transaction in which its outcome is handed to the `AnswerHandler`; whoever deletes it is the one who tells, so
an outcome is told once even where an answer and a deadline meet. A command without a deadline is *ordered*, and
its deadline is the end of the retry window, after which its receiver would no longer know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pydantic_core
from sqlalchemy import Connection, Row, func, select

from fedkit.errors import RemoteError
from fedkit.mesh.api import AnswerHandler, Outcome, Peer
from fedkit.mesh.sql import Statement
from fedkit.mesh.tables import outbox
from fedkit.store import Tx

_DELETE = Statement("DELETE FROM mesh_outbox WHERE jti = :jti")
_INSERT = Statement(
    "INSERT INTO mesh_outbox (jti, fedid, address, op, body, created, deadline, ordered)"
    " VALUES (:jti, :fedid, :address, :op, :body, :created, :deadline, :ordered) RETURNING id"
)


@dataclass(slots=True)
class Entry:
    """A row, and how it fares in this process. `created` and `deadline` are seconds since the epoch."""

    jti: str
    peer: Peer
    op: str
    body: str
    created: float
    deadline: float
    ordered: bool
    id: int = 0
    attempts: int = 0
    displaced: bool = False  # the peer failed over it, so those behind it no longer wait
    alone: bool = False  # its answer did not fit a pack
    not_before: float = 0.0  # seconds, monotonic


def insert(tx: Tx, entry: Entry) -> None:
    """Write a command down; sets its id."""
    row = {
        "jti": entry.jti,
        "fedid": entry.peer.fedid,
        "address": entry.peer.address,
        "op": entry.op,
        "body": entry.body,
        "created": entry.created,
        "deadline": entry.deadline,
        "ordered": entry.ordered,
    }
    found = _INSERT.first(tx, row)
    assert found is not None
    entry.id = found[0]


def close(
    tx: Tx, entry: Entry, handler: AnswerHandler | None, answer: dict[str, Any], error: RemoteError | None
) -> None:
    """Delete the row and tell the outcome, unless somebody has done so before."""
    if _DELETE.run(tx, {"jti": entry.jti}) and handler is not None:
        handler(tx, Outcome(entry.jti, entry.peer, entry.op, pydantic_core.from_json(entry.body), answer, error))


def waiting_peers(conn: Connection) -> list[Peer]:
    """The peers that something is waiting for."""
    rows = conn.execute(select(outbox.c.fedid, func.max(outbox.c.address)).group_by(outbox.c.fedid))
    return [Peer(fedid, address) for fedid, address in rows]


def neglected_peers(conn: Connection, before: float) -> list[Peer]:
    """The peers that something written before a time is still waiting for."""
    rows = conn.execute(
        select(outbox.c.fedid, func.max(outbox.c.address)).where(outbox.c.created < before).group_by(outbox.c.fedid)
    )
    return [Peer(fedid, address) for fedid, address in rows]


def load(conn: Connection, fedid: str, after: int, limit: int) -> list[Entry]:
    """The next rows for one peer, in the order of their ids."""
    query = select(outbox).where(outbox.c.fedid == fedid, outbox.c.id > after).order_by(outbox.c.id).limit(limit)
    return [_entry(row) for row in conn.execute(query)]


def overdue(conn: Connection, now: float, limit: int) -> list[Entry]:
    """Rows whose deadline has passed."""
    query = select(outbox).where(outbox.c.deadline <= now).order_by(outbox.c.deadline).limit(limit)
    return [_entry(row) for row in conn.execute(query)]


def next_deadline(conn: Connection) -> float | None:
    """The earliest deadline of all rows."""
    return conn.execute(select(func.min(outbox.c.deadline))).scalar()


def count(conn: Connection) -> int:
    """How many commands wait for their outcome."""
    return conn.execute(select(func.count()).select_from(outbox)).scalar_one()


def _entry(row: Row[Any]) -> Entry:
    # Whether an earlier process tried it is not known, so it counts as tried.
    return Entry(
        jti=row.jti,
        peer=Peer(row.fedid, row.address),
        op=row.op,
        body=row.body,
        created=row.created,
        deadline=row.deadline,
        ordered=row.ordered,
        id=row.id,
        attempts=1,
    )
