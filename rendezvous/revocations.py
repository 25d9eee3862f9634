"""The newest revocation list of each issuer, in one table, and the rules by which it is believed.

A list is believed because its issuer signed it; who brings it does not matter, only how many one may bring. It takes the next revision of
the members' list, so it travels as any change does. It is kept until the last credential that it names has expired, and a day
longer, lest an older one take its place meanwhile. Times are POSIX seconds.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Column, Connection, Double, String, Table, Text, delete, func, insert, select

from fedkit.policy.revocation import RevocationList
from fedkit.protocol.rendezvous import PAGE_OCTETS, Revocation, Revocations
from fedkit.store import Tx
from rendezvous.errors import StaleList, TooManyLists
from rendezvous.store import ENTRY_OVERHEAD, lock_state, metadata, next_revision, read_state

KEEP = timedelta(days=1)
LISTS_OF_ONE_SENDER = (
    200  # issuers whose lists one member may bring: itself, and its users that keep their keys themselves
)

lists = Table(
    "rendezvous_revocations",
    metadata,
    Column("issuer", String(40), primary_key=True),
    Column("sender", String(40), nullable=False, index=True),
    Column("serial", BigInteger, nullable=False),
    Column("signed", Text, nullable=False),
    Column("expires", Double, nullable=False),
    Column("revision", BigInteger, nullable=False, unique=True),
)

_TOLD = (lists.c.issuer, lists.c.signed, lists.c.revision)


def note(tx: Tx, heard: RevocationList, sender: str, now: datetime, maximum: int) -> bool:
    """Write down a list; return whether it is news. `maximum` lists are kept in all.

    Raises `StaleList` unless its serial is higher than any before of its issuer, `TooManyLists` for one too many.
    """
    state = lock_state(tx)
    tx.conn.execute(delete(lists).where(lists.c.expires <= now.timestamp()))
    issuer = heard.issuer.fedid
    known = tx.conn.execute(select(lists.c.serial, lists.c.signed).where(lists.c.issuer == issuer)).first()
    if known is not None and known.signed == heard.text:
        return False
    if known is not None and heard.serial <= known.serial:
        raise StaleList(
            f"Serial {heard.serial} is not higher than {known.serial}, which is known.", serial=known.serial
        )
    tx.conn.execute(delete(lists).where(lists.c.issuer == issuer))
    _require_room(tx.conn, sender, maximum)
    last = max(heard.revoked.values(), default=heard.issued)
    tx.conn.execute(
        insert(lists).values(
            issuer=issuer,
            sender=sender,
            serial=heard.serial,
            signed=heard.text,
            expires=(max(last, now) + KEEP).timestamp(),
            revision=next_revision(tx, state).revision,
        )
    )
    return True


def changed(conn: Connection, since: int, until: int, maximum: int) -> list[Revocation]:
    """Return the lists that came after the revision `since`, up to `until`, in order of revision."""
    query = select(*_TOLD).where(lists.c.revision > since, lists.c.revision <= until)
    return [Revocation(**row._mapping) for row in conn.execute(query.order_by(lists.c.revision).limit(maximum))]


def page(conn: Connection, after: str, maximum: int) -> Revocations:
    """Return the page of lists behind the issuer `after`, in order of issuers (XEP-0059 §2)."""
    state = read_state(conn)
    query = select(*_TOLD).where(lists.c.issuer > after).order_by(lists.c.issuer).limit(maximum + 1)
    rows = conn.execute(query).all()
    told: list[Revocation] = []
    size = 0
    for row in rows[:maximum]:
        size += len(row.signed) + ENTRY_OVERHEAD
        if told and size > PAGE_OCTETS:
            break
        told.append(Revocation(**row._mapping))
    return Revocations(revocations=told, complete=len(told) == len(rows), revision=state.revision, epoch=state.epoch)


def _require_room(conn: Connection, sender: str, maximum: int) -> None:
    count = conn.execute(select(func.count()).select_from(lists)).scalar_one()
    mine = conn.execute(select(func.count()).select_from(lists).where(lists.c.sender == sender)).scalar_one()
    if count >= maximum or mine >= LISTS_OF_ONE_SENDER:
        raise TooManyLists(
            f"This Rendezvous keeps {count} revocation lists, {mine} of them from you; it keeps no more.",
            lists=count,
            yours=mine,
        )
