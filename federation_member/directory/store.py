"""The last known list, in two tables, so that a member works without its Rendezvous and after any restart.

`directory_state` has one row: whose list this is, the epoch and revision up to which it is known (none before the first
whole reading), when it was last known to be complete, and the last serial that we announced ourselves with.

`directory_members` has each member's own signed text. `unlisted` is since when the Rendezvous does not name it any more: a
Rendezvous that lost its store must not empty the federation, so such a member counts as alive for a while yet. `stamp`
grows with every write, so that a reader sees which rows it has not read. Times are POSIX seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from federation_member.directory.errors import UnusableEntry
from fedkit.errors import FedError
from fedkit.mesh.pins import Pins
from fedkit.protocol.announcement import SignedAnnouncement, read_announcement
from fedkit.protocol.rendezvous import Member
from fedkit.store import Tx

log = structlog.get_logger()

KEEP = timedelta(days=7)  # a member that is gone is shown for so long
MAX_KNOWN = 10_000  # members; a Rendezvous that names more is not believed

metadata = MetaData()

state = Table(
    "directory_state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rendezvous", String(40), nullable=False),
    Column("epoch", String(32), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("as_of", Double),
    Column("serial", BigInteger, nullable=False),
    Column("stamp", BigInteger, nullable=False),
)

known = Table(
    "directory_members",
    metadata,
    Column("fedid", String(40), primary_key=True),
    Column("signed", Text, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("alive", Boolean, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("unlisted", Double),
    Column("stamp", BigInteger, nullable=False),
)


@dataclass(frozen=True)
class Standing:
    """How much of whose list is known; `epoch` is empty before the first whole reading."""

    rendezvous: str
    epoch: str
    revision: int
    as_of: float | None
    serial: int
    stamp: int


@dataclass(frozen=True)
class Row:
    """One member as it is kept."""

    fedid: str
    signed: str
    serial: int
    alive: bool
    last_seen: float
    revision: int
    unlisted: float | None
    stamp: int


def begin(tx: Tx, rendezvous: str) -> None:
    """Make the one row; after a change of the Rendezvous, keep the members but read the new one's whole list."""
    row = tx.conn.execute(select(state).with_for_update()).first()
    blank: dict[str, Any] = {"rendezvous": rendezvous, "epoch": "", "revision": 0}
    if row is None:
        tx.conn.execute(insert(state).values(id=1, serial=0, stamp=0, **blank))
    elif row.rendezvous != rendezvous:
        tx.conn.execute(update(state).values(**blank))


def read_standing(conn: Connection) -> Standing:
    """Return the one row."""
    return _standing(conn, select(state))


def lock_standing(tx: Tx) -> Standing:
    """Return the one row, which nobody else changes until this transaction ends."""
    return _standing(tx.conn, select(state).with_for_update())


def next_serial(tx: Tx, now: datetime) -> int:
    """Return a serial above all before it, also after this store was lost: milliseconds since 1970, or more."""
    serial = max(lock_standing(tx).serial + 1, int(now.timestamp() * 1000))
    tx.conn.execute(update(state).values(serial=serial))
    return serial


def apply(tx: Tx, members: Sequence[Member], now: datetime, *, whole: bool) -> None:
    """Write down what the Rendezvous told of members, as far as each one's own signature bears it out.

    An entry that does not verify, or is older than what we know, is logged and leaves what we know as it is. In a
    `whole` reading revisions of another epoch are no reason to think an entry old.
    """
    standing = lock_standing(tx)
    stamp = standing.stamp + 1
    for member in members:
        row = _row(tx.conn, member.fedid)
        if row is not None and not whole and member.revision <= row.revision:
            continue
        try:
            heard = _check(tx, member, row, now)
        except FedError as error:
            log.warning("directory_entry_refused", fedid=member.fedid, code=error.code, reason=error.message)
            continue
        _write(tx, member, heard, row, stamp)
    _forget(tx, now)
    tx.conn.execute(update(state).values(stamp=stamp))


def confirm(tx: Tx, at: datetime) -> None:
    """Write down that what we know is all there was `at` that time."""
    tx.conn.execute(update(state).values(as_of=at.timestamp()))


def move(tx: Tx, epoch: str, revision: int, as_of: datetime | None) -> None:
    """Write down up to where the list is known, and (unless None) that it is all there was at `as_of`."""
    values: dict[str, Any] = {"epoch": epoch, "revision": revision}
    if as_of is not None:
        values["as_of"] = as_of.timestamp()
    tx.conn.execute(update(state).values(**values))


def forget_revision(tx: Tx) -> None:
    """What we know no longer says where we stand: the whole list must be read."""
    tx.conn.execute(update(state).values(epoch="", revision=0))


def finish_whole(tx: Tx, listed: Collection[str], epoch: str, revision: int, now: datetime) -> None:
    """End a whole reading that began at `revision`: mark who was not `listed`, and go on from there."""
    stamp = lock_standing(tx).stamp + 1
    for row in tx.conn.execute(select(known.c.fedid, known.c.unlisted)).all():
        if row.fedid not in listed:
            values = {"unlisted": row.unlisted or now.timestamp(), "revision": 0, "stamp": stamp}
            tx.conn.execute(update(known).where(known.c.fedid == row.fedid).values(**values))
    tx.conn.execute(update(state).values(stamp=stamp))
    move(tx, epoch, revision, None)


def read_stamps(conn: Connection) -> dict[str, int]:
    """Return the stamp of every row: what changed has another one than before."""
    return {row.fedid: row.stamp for row in conn.execute(select(known.c.fedid, known.c.stamp))}


def read_rows(conn: Connection, fedids: Collection[str]) -> list[Row]:
    """Return these rows, as far as they still exist."""
    wanted = list(fedids)
    rows: list[Row] = []
    for start in range(0, len(wanted), 500):  # SQLite bounds the variables of one statement
        query = select(known).where(known.c.fedid.in_(wanted[start : start + 500]))
        rows += [Row(**row._mapping) for row in conn.execute(query)]
    return rows


def _check(tx: Tx, member: Member, row: Row | None, now: datetime) -> SignedAnnouncement | None:
    """Return the checked announcement, None where the text is the one that we have; raise if it is not the member's."""
    if row is not None and row.signed == member.signed:
        return None
    heard = read_announcement(member.signed)
    if heard.announcement.fedid != member.fedid:
        raise UnusableEntry(f"The entry of {member.fedid} holds the announcement of {heard.announcement.fedid}.")
    if row is not None and heard.announcement.serial < row.serial:
        raise UnusableEntry(f"Serial {heard.announcement.serial} is older than {row.serial}, which is known.")
    if row is None and tx.conn.execute(select(func.count()).select_from(known)).scalar_one() >= MAX_KNOWN:
        raise UnusableEntry(f"{MAX_KNOWN} members are known; no more are believed.")
    Pins().pin(tx, heard.key, now.timestamp())
    return heard


def _write(tx: Tx, member: Member, heard: SignedAnnouncement | None, row: Row | None, stamp: int) -> None:
    values: dict[str, Any] = {
        "alive": member.alive,
        "last_seen": member.last_seen.timestamp(),
        "revision": member.revision,
        "unlisted": None,
        "stamp": stamp,
    }
    if heard is not None:
        values |= {"signed": heard.signed, "serial": heard.announcement.serial}
    if row is None:
        tx.conn.execute(insert(known).values(fedid=member.fedid, **values))
    else:
        tx.conn.execute(update(known).where(known.c.fedid == member.fedid).values(**values))


def _forget(tx: Tx, now: datetime) -> None:
    horizon = (now - KEEP).timestamp()
    gone = (~known.c.alive) & (known.c.last_seen < horizon)
    tx.conn.execute(delete(known).where(or_(gone, known.c.unlisted < horizon)))


def _standing(conn: Connection, query: Select[Any]) -> Standing:
    row = conn.execute(query).one()
    return Standing(row.rendezvous, row.epoch, row.revision, row.as_of, row.serial, row.stamp)


def _row(conn: Connection, fedid: str) -> Row | None:
    row = conn.execute(select(known).where(known.c.fedid == fedid)).first()
    return None if row is None else Row(**row._mapping)
