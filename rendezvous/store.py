"""The list of members, in two tables; the revocation lists, in a third, are `revocations.py`'s, and share the revisions.

`rendezvous_list` has one row: the epoch (one life of this store), the last revision given, and the floor, up to which
changes were forgotten. Every change locks that row first and takes the next revision from it, so revisions become visible in
their order; a page is read after the revision that it is labelled with, so whatever it misses is in the changes since.

Each member is also a subscriber of the changes: `told` is the revision up to which it knows everything, `notice` the one
request under way that tells it more, and `silent` that the last one was not answered; its next sign of life ends that.
Times are POSIX seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from fedkit.mesh.api import Peer
from fedkit.protocol.announcement import SignedAnnouncement
from fedkit.protocol.rendezvous import PAGE_OCTETS, Members
from fedkit.store import Tx
from rendezvous.errors import Full, NotAnnounced, StaleAnnouncement
from rendezvous.model import KEEP, Entry

ENTRY_OVERHEAD = 256  # octets of JSON around `signed`
LAST_FEDID = "g"  # behind every fedid

metadata = MetaData()

the_list = Table(
    "rendezvous_list",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", String(32), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
)

entries = Table(
    "rendezvous_members",
    metadata,
    Column("fedid", String(40), primary_key=True),
    Column("address", String(253), nullable=False),
    Column("signed", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("issued", Double, nullable=False),
    Column("ttl", Integer, nullable=False),
    Column("alive", Boolean, nullable=False),
    Column("last_seen", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("revision", BigInteger, nullable=False, unique=True),
    Column("told", BigInteger, nullable=False),
    Column("notice", String(64)),
    Column("silent", Boolean, nullable=False),
    Index("rendezvous_members_due", "alive", "expires"),
)

_LISTED = (entries.c.fedid, entries.c.signed, entries.c.alive, entries.c.last_seen, entries.c.revision)


@dataclass(frozen=True)
class ListState:
    """The one row about the whole list."""

    epoch: str
    revision: int
    floor: int


@dataclass(frozen=True)
class Subscriber:
    """Somebody who is to be told what changed after revision `told`."""

    peer: Peer
    told: int


@dataclass(frozen=True)
class LivingPage:
    """Some of the living members, where the first of them stands among all (from 0), and how many live."""

    entries: list[Entry]
    index: int
    count: int


@dataclass(frozen=True)
class _Known:
    serial: int
    issued: float
    ttl: int
    alive: bool
    digest: str


def create_list(tx: Tx, epoch: str) -> None:
    """Begin the list under `epoch` (32 random hex digits) unless it has begun."""
    if tx.conn.execute(select(the_list.c.id)).first() is None:
        tx.conn.execute(insert(the_list).values(id=1, epoch=epoch, revision=0, floor=0))


def read_state(conn: Connection) -> ListState:
    """Return the state of the list."""
    return _state(conn, select(the_list))


def lock_state(tx: Tx) -> ListState:
    """Return the state of the list, which nobody else changes until this transaction ends."""
    return _state(tx.conn, select(the_list).with_for_update())


def announce(tx: Tx, heard: SignedAnnouncement, ttl: int, now: datetime, max_members: int) -> tuple[ListState, bool]:
    """Write down that a member lives; return the list's state, of which it is told herewith, and whether that is news.

    Raises `StaleAnnouncement` unless the serial is higher than any before, `Full` for a new member too many.
    """
    announcement = heard.announcement
    state = lock_state(tx)
    known = _known(tx.conn, announcement.fedid)
    if known is None:
        _require_room(tx.conn, max_members)
    elif announcement.serial <= known.serial:
        raise StaleAnnouncement(
            f"Serial {announcement.serial} is not higher than {known.serial}, which is known.", serial=known.serial
        )
    values: dict[str, Any] = {
        "serial": announcement.serial,
        "issued": announcement.issued.timestamp(),
        "ttl": ttl,
        "last_seen": now.timestamp(),
        "expires": now.timestamp() + ttl,
        "silent": False,
    }
    changed = known is None or not known.alive or known.digest != heard.digest
    if changed:
        state = next_revision(tx, state)
        values |= {"alive": True, "revision": state.revision, "digest": heard.digest, "signed": heard.signed}
        values["address"] = announcement.address
    values["told"] = state.revision
    if known is None:
        tx.conn.execute(insert(entries).values(fedid=announcement.fedid, **values))
    else:
        tx.conn.execute(update(entries).where(entries.c.fedid == announcement.fedid).values(**values))
    return state, changed or (known is not None and known.ttl != ttl)


def still_alive(tx: Tx, fedid: str, serial: int, now: datetime) -> tuple[ListState, int]:
    """Note a sign of life; return the list's state, of which that member is told herewith, and its ttl in seconds.

    Raises `NotAnnounced` unless it is listed as alive with what it announced under `serial`.
    """
    state = lock_state(tx)
    known = _known(tx.conn, fedid)
    if known is None or not known.alive or known.serial != serial:
        raise NotAnnounced(f"{fedid} is not on the list with its announcement {serial}; announce it again.")
    values = {"last_seen": now.timestamp(), "expires": now.timestamp() + known.ttl}
    tx.conn.execute(update(entries).where(entries.c.fedid == fedid).values(told=state.revision, silent=False, **values))
    return state, known.ttl


def leave(tx: Tx, fedid: str, issued: datetime) -> bool:
    """Mark a member gone at its own wish, unless it announced itself after it had `issued` that; tell whether it did."""
    state = lock_state(tx)
    known = _known(tx.conn, fedid)
    if known is None or not known.alive or known.issued > issued.timestamp():
        return False
    _mark_gone(tx, fedid, next_revision(tx, state).revision, expires=issued.timestamp())
    return True


def expire(tx: Tx, now: datetime) -> list[str]:
    """Mark gone who was silent too long, forget who has been gone for `KEEP`; return the fedids of those now gone."""
    state = lock_state(tx)
    moment = now.timestamp()
    due = select(entries.c.fedid, entries.c.expires).where(entries.c.alive, entries.c.expires <= moment)
    gone = tx.conn.execute(due.order_by(entries.c.expires, entries.c.fedid)).all()
    for row in gone:
        state = next_revision(tx, state)
        _mark_gone(tx, row.fedid, state.revision, row.expires)
    old = (~entries.c.alive) & (entries.c.expires <= moment - KEEP.total_seconds())
    last = tx.conn.execute(select(func.max(entries.c.revision)).where(old)).scalar()
    if last is not None:
        tx.conn.execute(delete(entries).where(old))
        tx.conn.execute(update(the_list).values(floor=max(state.floor, last)))
    return [row.fedid for row in gone]


def next_due(conn: Connection) -> datetime | None:
    """Return when `expire` has something to do next; None while the list is empty."""
    by_liveness = select(entries.c.alive, func.min(entries.c.expires)).group_by(entries.c.alive)
    due = [first + (0 if alive else KEEP.total_seconds()) for alive, first in conn.execute(by_liveness)]
    return datetime.fromtimestamp(min(due), UTC) if due else None


def grant_grace(tx: Tx, now: datetime) -> None:
    """After a restart nobody could have been heard: give everybody alive its ttl from now, and tell that we are back.

    The last change is told once more to everybody; hearing of us is what ends a member's back-off.
    """
    granted = now.timestamp() + entries.c.ttl
    later = update(entries).where(entries.c.alive, entries.c.expires < granted)
    tx.conn.execute(later.values(expires=granted))
    last = read_state(tx.conn).revision
    untold = update(entries).where(entries.c.alive, entries.c.told >= last)
    tx.conn.execute(untold.values(told=max(last - 1, 0)))


def members_page(conn: Connection, after: str, maximum: int) -> Members:
    """Return the page of entries behind the fedid `after`, in order of fedid (XEP-0059 §2)."""
    state = read_state(conn)
    count = conn.execute(select(func.count()).select_from(entries)).scalar_one()
    query = select(*_LISTED).where(entries.c.fedid > after).order_by(entries.c.fedid)
    page, complete = _page(conn, query, maximum)
    return Members(
        members=[entry.to_member() for entry in page],
        count=count,
        complete=complete,
        revision=state.revision,
        epoch=state.epoch,
    )


def living_page(conn: Connection, uid: str, maximum: int, *, backwards: bool) -> LivingPage:
    """Return living members behind the fedid `uid`, or before it (before all, where it is empty), in order of fedid."""
    living = select(func.count()).select_from(entries).where(entries.c.alive)
    query = select(*_LISTED).where(entries.c.alive)
    if backwards:
        query = query.where(entries.c.fedid < (uid or LAST_FEDID)).order_by(entries.c.fedid.desc())
    else:
        query = query.where(entries.c.fedid > uid).order_by(entries.c.fedid)
    page = [_entry(row) for row in conn.execute(query.limit(maximum))]
    if backwards:
        page.reverse()
    index = conn.execute(living.where(entries.c.fedid < page[0].fedid)).scalar_one() if page else 0
    return LivingPage(page, index, conn.execute(living).scalar_one())


def changed_entries(conn: Connection, since: int, until: int, maximum: int) -> list[Entry]:
    """Return the entries that changed after the revision `since`, up to `until`, in order of revision."""
    query = select(*_LISTED).where(entries.c.revision > since, entries.c.revision <= until)
    return [_entry(row) for row in conn.execute(query.order_by(entries.c.revision).limit(maximum))]


def subscribers_to_tell(tx: Tx, state: ListState, maximum: int) -> list[Subscriber]:
    """Return members that live, answer, do not know `state` yet and are not being told already."""
    waiting = select(entries.c.fedid, entries.c.address, entries.c.told).where(
        entries.c.alive, ~entries.c.silent, entries.c.notice.is_(None), entries.c.told < state.revision
    )
    rows = tx.conn.execute(waiting.order_by(entries.c.told).limit(maximum).with_for_update())
    return [Subscriber(Peer(row.fedid, row.address), row.told) for row in rows]


def notice_sent(tx: Tx, fedid: str, request_id: str) -> None:
    """Remember the one notice under way to a subscriber."""
    tx.conn.execute(update(entries).where(entries.c.fedid == fedid).values(notice=request_id))


def notice_ended(tx: Tx, fedid: str, request_id: str, told: int | None) -> None:
    """A notice was acknowledged up to revision `told`, or (None) was not: its receiver is silent until it is heard."""
    row = tx.conn.execute(
        select(entries.c.told).where(entries.c.fedid == fedid, entries.c.notice == request_id).with_for_update()
    ).first()
    if row is None:
        return  # forgotten meanwhile
    outcome: dict[str, Any] = {"silent": True} if told is None else {"told": max(told, row.told)}
    tx.conn.execute(update(entries).where(entries.c.fedid == fedid).values(notice=None, **outcome))


def count_members(conn: Connection) -> dict[bool, int]:
    """Return how many members are alive (True) and gone (False)."""
    counts = select(entries.c.alive, func.count()).group_by(entries.c.alive)
    return {True: 0, False: 0} | {bool(alive): number for alive, number in conn.execute(counts)}


def _state(conn: Connection, query: Select[Any]) -> ListState:
    row = conn.execute(query).one()
    return ListState(row.epoch, row.revision, row.floor)


def _known(conn: Connection, fedid: str) -> _Known | None:
    query = select(entries.c.serial, entries.c.issued, entries.c.ttl, entries.c.alive, entries.c.digest)
    row = conn.execute(query.where(entries.c.fedid == fedid).with_for_update()).first()
    return None if row is None else _Known(*row)


def _require_room(conn: Connection, max_members: int) -> None:
    count = conn.execute(select(func.count()).select_from(entries)).scalar_one()
    if count >= max_members:
        raise Full(f"This Rendezvous lists {count} members, as many as it may; ask its operator.", members=count)


def next_revision(tx: Tx, state: ListState) -> ListState:
    """Take the next revision; the caller has locked `state`."""
    revision = state.revision + 1
    tx.conn.execute(update(the_list).values(revision=revision))
    return ListState(state.epoch, revision, state.floor)


def _mark_gone(tx: Tx, fedid: str, revision: int, expires: float) -> None:
    values = {"alive": False, "revision": revision, "expires": expires}
    tx.conn.execute(update(entries).where(entries.c.fedid == fedid).values(**values))


def _page(conn: Connection, query: Select[Any], maximum: int) -> tuple[list[Entry], bool]:
    """Return entries up to `maximum` and `PAGE_OCTETS`, one at least where one is asked for, and whether none follows."""
    page: list[Entry] = []
    size = 0
    rows = conn.execute(query.limit(maximum + 1)).all()
    for row in rows[:maximum]:
        size += len(row.signed) + ENTRY_OVERHEAD
        if page and size > PAGE_OCTETS:
            break
        page.append(_entry(row))
    return page, len(page) == len(rows)


def _entry(row: Any) -> Entry:
    return Entry(row.fedid, row.signed, row.alive, datetime.fromtimestamp(row.last_seen, UTC), row.revision)
