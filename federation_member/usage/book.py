"""Writes spells down: those of our own leases as they change, those at other lenders as these tell them.

Everything is written in the transaction of what it follows from, so after a crash a spell is where its lease is. Of what is lent the
audit log tells too (`Kind.USAGE`): each beginning and end with its sizes, so that the sums can be made again from the log alone.

A lender tells its last two spells with every view of a lease, and every change of one is told; so views may come late, twice or in
the wrong order. What it said once it cannot unsay: a later word can only end what was open.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Connection, Row, delete, insert, select, update

from federation_member.access import audit
from federation_member.access.audit import Kind
from federation_member.usage.model import Party, Role
from federation_member.usage.tables import usage
from fedkit.protocol.lending import LeaseView, Spell
from fedkit.store import Tx

log = structlog.get_logger()


def lent(tx: Tx, lease_id: str, party: Party, before: Iterable[Spell], after: Iterable[Spell]) -> None:
    """Write how the spells of a lease of ours changed."""
    known = {spell.number: spell for spell in before}
    for spell in after:
        old = known.get(spell.number)
        if old is None:
            _add(tx.conn, Role.LENT, lease_id, party, spell)
            _tell(tx, lease_id, party, spell, "began", spell.began)
        elif old != spell and spell.ended is not None:
            _end(tx.conn, Role.LENT, lease_id, spell.number, spell.ended)
            _tell(tx, lease_id, party, spell, "ended", spell.ended)


def borrowed(tx: Tx, party: Party, view: LeaseView) -> None:
    """Write what a lender tells of a lease that we have of it."""
    if not view.spells:
        return
    t = usage.c
    numbers = [spell.number for spell in view.spells]
    query = select(usage).where(t.role == Role.BORROWED.value, t.lease_id == view.lease_id, t.number.in_(numbers))
    known = {row.number: row for row in tx.conn.execute(query)}
    for spell in view.spells:
        _learn(tx.conn, party, known.get(spell.number), spell, view)


def borrowed_before(tx: Tx, lender: str, view: LeaseView) -> None:
    """Write what a lender tells of a lease whose order may be forgotten, if our book says that we had it of that lender."""
    t = usage.c
    query = select(usage).where(t.role == Role.BORROWED.value, t.lease_id == view.lease_id, t.member == lender)
    row = tx.conn.execute(query.limit(1)).one_or_none()
    if row is not None:
        borrowed(tx, Party(row.member, row.address, row.project, row.owner, row.kind), view)


def forget(conn: Connection, before: datetime, limit: int) -> int:
    """Forget at most `limit` spells that ended before a time; tells how many."""
    t = usage.c
    query = select(t.role, t.lease_id, t.number).where(t.role.in_([role.value for role in Role]), t.ended < before)
    rows = conn.execute(query.limit(limit)).all()
    for row in rows:
        conn.execute(delete(usage).where(*_is(Role(row.role), row.lease_id, row.number)))
    return len(rows)


def _learn(conn: Connection, party: Party, known: Row[Any] | None, spell: Spell, view: LeaseView) -> None:
    until = None if spell.ended else view.expires
    if known is None:
        _add(conn, Role.BORROWED, view.lease_id, party, spell, until)
    elif not _says_the_same(known, spell):
        log.warning("lender_contradicts_itself", lease=view.lease_id, lender=party.address, spell=spell.number)
    elif known.ended is None and (spell.ended is not None or known.until != until):
        _end(conn, Role.BORROWED, view.lease_id, spell.number, spell.ended, until)


def _says_the_same(row: Row[Any], spell: Spell) -> bool:
    """Tell whether a lender's word fits what it said before; that it is late, and still tells of a spell as open, is fine."""
    said = (row.vcpu, row.ram_mb, row.disk_gb, row.began)
    if said != (spell.vcpu, spell.ram_mb, spell.disk_gb, spell.began):
        return False
    return row.ended is None or spell.ended is None or row.ended == spell.ended


def _add(
    conn: Connection, role: Role, lease_id: str, party: Party, spell: Spell, until: datetime | None = None
) -> None:
    conn.execute(
        insert(usage).values(
            role=role.value,
            lease_id=lease_id,
            number=spell.number,
            member=party.member,
            address=party.address,
            project=party.project,
            owner=party.user,
            kind=party.kind,
            vcpu=spell.vcpu,
            ram_mb=spell.ram_mb,
            disk_gb=spell.disk_gb,
            began=spell.began,
            ended=spell.ended,
            until=until,
        )
    )


def _end(
    conn: Connection, role: Role, lease_id: str, number: int, ended: datetime | None, until: datetime | None = None
) -> None:
    query = update(usage).where(*_is(role, lease_id, number))
    conn.execute(query.values(ended=ended, until=until))


def _is(role: Role, lease_id: str, number: int) -> tuple[Any, ...]:
    return usage.c.role == role.value, usage.c.lease_id == lease_id, usage.c.number == number


def _tell(tx: Tx, lease_id: str, party: Party, spell: Spell, event: str, at: datetime) -> None:
    said = {
        "lease": lease_id,
        "spell": spell.number,
        "event": event,
        "member": party.member,
        "address": party.address,
        "project": party.project,
        "user": party.user,
        "lends": party.kind,
        "sizes": {"vcpu": spell.vcpu, "ram_mb": spell.ram_mb, "disk_gb": spell.disk_gb},
    }
    audit.append(tx, at, Kind.USAGE, said)
