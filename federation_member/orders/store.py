"""The borrower's book: orders, the attempts at them, and their history.

`OrderStore.change` is the only way in which an order changes: row and event are written together, and whoever must look next
is told after the commit. Functions take the connection of the caller's transaction; the caller holds the order's
row lock (`load(…, lock=True)`) before it decides anything. Events are numbered by one counter row whose lock lasts until
the commit, so their numbers become visible in order and a reader that remembers the last one misses none. That lock is the last
one that a transaction takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from federation_member.orders.model import (
    Access,
    Attempt,
    AttemptState,
    Handle,
    Order,
    OrderEvent,
    OrderState,
    OrderType,
    Sent,
    User,
)
from federation_member.orders.tables import EPOCH, order_attempts, order_counter, order_events, order_uses, orders
from federation_member.orders.wishes import as_columns, of_columns
from fedkit.clock import Clock
from fedkit.protocol.lending import Instance, Line, Spec, Tunnel
from fedkit.store import Tx

SPEC: TypeAdapter[Spec] = TypeAdapter(Spec)
SENT: TypeAdapter[tuple[Sent, ...]] = TypeAdapter(tuple[Sent, ...])
MISSING: TypeAdapter[tuple[tuple[str, ...], ...]] = TypeAdapter(tuple[tuple[Line, ...], ...])
HANDLE: TypeAdapter[Handle] = TypeAdapter(Handle)
ACCESS: TypeAdapter[Access] = TypeAdapter(Access)
TUNNELS: TypeAdapter[tuple[Tunnel, ...]] = TypeAdapter(tuple[Tunnel, ...])
FINAL = frozenset({AttemptState.REFUSED, AttemptState.FAILED, AttemptState.RELEASED})
HELD = frozenset({AttemptState.ASKED, AttemptState.ACCEPTED, AttemptState.RUNNING})
REASON_LENGTH = 1024
HAS_TIME = orders.c.due >= EPOCH  # not "is not null", for which SQLite would read the whole table


@dataclass(frozen=True)
class Record:
    """An order with what only the scheduler needs to know of it."""

    order: Order
    round: int
    failures: int
    next_try: datetime | None
    due: datetime | None


@dataclass(frozen=True)
class AttemptRecord:
    """An attempt with what only the borrower's machinery needs to know of it."""

    attempt: Attempt
    round: int
    revision: int
    seconds: int
    heard: datetime
    number: int = 0
    fresh_due: datetime | None = None

    @property
    def lease_id(self) -> str:
        """The lease that was asked for."""
        return self.attempt.lease_id

    @property
    def state(self) -> AttemptState:
        """Where it is."""
        return self.attempt.state

    @property
    def final(self) -> bool:
        """Whether its lender holds nothing any more."""
        return self.attempt.state in FINAL


class OrderStore:
    """Reads and writes the book; `changed(order_id, due)` is called after each commit that changed an order."""

    def __init__(self, clock: Clock, changed: Callable[[str, datetime | None], None]) -> None:
        self._clock = clock
        self._changed = changed

    # Orders

    def add(self, tx: Tx, record: Record) -> None:
        """Write a new order and its first event."""
        order = record.order
        values = {
            "id": order.id,
            "project": order.owner.project,
            "owner": order.owner.name,
            "kind": order.spec.kind,
            "spec": order.spec.model_dump_json(),
            "batch": order.batch,
            "location": order.location,
            "valid_from": order.valid_from,
            "valid_until": order.valid_until,
            "lease_seconds": order.lease_seconds,
            "created": order.created,
        }
        tx.conn.execute(insert(orders).values(type=order.type.value, **values, **_columns(record)))
        tx.at_the_end(lambda: self._add_event(tx.conn, order))
        tx.after_commit(lambda: self._changed(order.id, record.due))

    def change(
        self,
        tx: Tx,
        record: Record,
        *,
        state: OrderState | None = None,
        code: str | None = None,
        reason: str | None = None,
        order: dict[str, Any] | None = None,
        **scheduling: Any,
    ) -> Record:
        """Write a change of an order and return the new record; what a person would want to know makes an event.

        `order` are further fields of the `Order`, `scheduling` fields of the `Record`.
        """
        old = record.order
        new = replace(
            old,
            state=state or old.state,
            code=old.code if code is None else code,
            reason=old.reason if reason is None else reason[:REASON_LENGTH],
            **(order or {}),
        )
        now = self._clock()
        told = _told(new) != _told(old)
        if new != old:
            new = replace(new, changed=now, revision=old.revision + 1)
        before, record = record, replace(record, order=new, **scheduling)
        if record == before:
            return record
        tx.conn.execute(update(orders).where(orders.c.id == new.id).values(**_columns(record)))
        if told:
            tx.at_the_end(lambda: self._add_event(tx.conn, new))
        tx.after_commit(lambda: self._changed(new.id, record.due))
        if new.state is not old.state:
            self._wake_related(tx, new.id)
        return record

    def _wake_related(self, tx: Tx, order_id: str) -> None:
        """Who uses it waits until it runs; what it uses and is to be deleted waits until it is gone."""
        users = select(order_uses.c.order_id).where(order_uses.c.used_id == order_id)
        used = select(order_uses.c.used_id).where(order_uses.c.order_id == order_id)
        related = list(tx.conn.execute(users.union(used)).scalars())
        if related:
            tx.after_commit(lambda: self._wake(related))

    def _wake(self, order_ids: list[str]) -> None:
        for order_id in order_ids:
            self._changed(order_id, self._clock())

    def _add_event(self, conn: Connection, order: Order) -> None:
        number = conn.execute(
            update(order_counter)
            .where(order_counter.c.id == 1)
            .values(events=order_counter.c.events + 1)
            .returning(order_counter.c.events)
        ).scalar_one()
        conn.execute(
            insert(order_events).values(
                sequence=number,
                order_id=order.id,
                project=order.owner.project,
                owner=order.owner.name,
                at=order.changed,
                state=order.state.value,
                code=order.code,
                reason=order.reason,
            )
        )

    # Attempts

    def add_attempt(self, conn: Connection, record: AttemptRecord) -> None:
        """Write a new attempt."""
        attempt = record.attempt
        conn.execute(
            insert(order_attempts).values(
                lease_id=attempt.lease_id,
                order_id=attempt.order_id,
                round=record.round,
                fedid=attempt.fedid,
                address=attempt.address,
                member=attempt.member,
                state=attempt.state.value,
                code=attempt.code,
                reason=attempt.reason,
                revision=record.revision,
                seconds=record.seconds,
                started=attempt.started,
                changed=attempt.changed,
                heard=record.heard,
                expires=attempt.expires,
                number=record.number,
                name=attempt.name,
                sent=SENT.dump_json(attempt.sent).decode(),
                fresh_due=record.fresh_due,
            )
        )

    def change_attempt(self, conn: Connection, lease_id: str, state: AttemptState | None = None, **values: Any) -> None:
        """Write a change of an attempt; one that is no longer held is not renewed any more."""
        if state is not None:
            values["state"] = state.value
            if state not in HELD:
                values["sync_due"] = None
        if "reason" in values:
            values["reason"] = values["reason"][:REASON_LENGTH]
        if "access" in values:
            values["access"] = ACCESS.dump_json(values["access"]).decode()
        conn.execute(
            update(order_attempts).where(order_attempts.c.lease_id == lease_id).values(changed=self._clock(), **values)
        )


def _told(order: Order) -> tuple[object, ...]:
    return (order.state, order.code, order.reason, order.instance, order.tunnels, order.wishes, order.rules)


def load(conn: Connection, order_id: str, *, lock: bool = False) -> Record | None:
    """Read one order; `lock` keeps others from changing it until the end of the transaction."""
    query = select(orders).where(orders.c.id == order_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _record(row)


def load_many(conn: Connection, query: Select[Any]) -> list[Order]:
    """Read the orders that a query over `orders` selects."""
    return [_record(row).order for row in conn.execute(query)]


def load_attempts(conn: Connection, order_id: str) -> list[AttemptRecord]:
    """Read the attempts at an order, oldest first."""
    rows = order_attempts.c
    query = select(order_attempts).where(rows.order_id == order_id)
    return [_attempt(row) for row in conn.execute(query.order_by(rows.round, rows.number, rows.started))]


def load_attempt(conn: Connection, lease_id: str) -> AttemptRecord | None:
    """Read one attempt."""
    row = conn.execute(select(order_attempts).where(order_attempts.c.lease_id == lease_id)).one_or_none()
    return None if row is None else _attempt(row)


def forget_rounds(conn: Connection, order_id: str, before: int) -> None:
    """Forget finished attempts of rounds before `before`, so that an order that waits long does not grow."""
    conn.execute(
        delete(order_attempts).where(
            order_attempts.c.order_id == order_id,
            order_attempts.c.round < before,
            order_attempts.c.state.in_([state.value for state in FINAL]),
        )
    )


def waiting(conn: Connection) -> Iterable[tuple[str, datetime | None]]:
    """Ids of all orders that the scheduler must look at, and when (None: now)."""
    by_time = select(orders.c.id, orders.c.due).where(HAS_TIME)
    now = select(orders.c.id, orders.c.due).where(
        orders.c.state.in_([OrderState.OPEN.value, OrderState.DELETING.value]),
        orders.c.due.is_(None),
    )
    return [(row.id, row.due) for query in (by_time, now) for row in conn.execute(query)]


def due_before(conn: Connection, time: datetime) -> list[str]:
    """Ids of all orders that the scheduler should have looked at by a time."""
    return list(conn.execute(select(orders.c.id).where(orders.c.due < time)).scalars())


def last_event(conn: Connection) -> int:
    """The newest event's sequence number."""
    return int(conn.execute(select(order_counter.c.events)).scalar_one())


def read_events(conn: Connection, where: Iterable[Any], limit: int) -> list[OrderEvent]:
    """Read events in their order."""
    query = select(order_events).where(*where).order_by(order_events.c.sequence).limit(limit)
    return [
        OrderEvent(row.order_id, row.sequence, row.at, OrderState(row.state), row.code, row.reason)
        for row in conn.execute(query)
    ]


def _columns(record: Record) -> dict[str, Any]:
    """The columns that change during an order's life."""
    order = record.order
    return {
        "state": order.state.value,
        "code": order.code,
        "reason": order.reason,
        "changed": order.changed,
        "revision": order.revision,
        "round": record.round,
        "failures": record.failures,
        "next_try": record.next_try,
        "due": record.due,
        "lease_id": order.lease_id,
        "member": order.member,
        "member_fedid": order.member_fedid,
        "lease_expires": order.lease_expires,
        "instance": None if order.instance is None else order.instance.model_dump_json(),
        "tunnels": TUNNELS.dump_json(order.tunnels).decode(),
        "handle": None if order.handle is None else HANDLE.dump_json(order.handle).decode(),
        **as_columns(order.wishes, order.rules),
    }


def _record(row: Row[Any]) -> Record:
    wishes, rules = of_columns(row)
    order = Order(
        id=row.id,
        owner=User(row.project, row.owner),
        type=OrderType(row.type),
        state=OrderState(row.state),
        reason=row.reason,
        spec=SPEC.validate_json(row.spec),
        location=row.location,
        batch=row.batch,
        valid_from=row.valid_from,
        valid_until=row.valid_until,
        lease_seconds=row.lease_seconds,
        created=row.created,
        changed=row.changed,
        revision=row.revision,
        member=row.member,
        member_fedid=row.member_fedid,
        lease_id=row.lease_id,
        lease_expires=row.lease_expires,
        instance=None if row.instance is None else Instance.model_validate_json(row.instance),
        tunnels=TUNNELS.validate_json(row.tunnels),
        code=row.code,
        handle=None if row.handle is None else HANDLE.validate_json(row.handle),
        wishes=wishes,
        rules=rules,
    )
    return Record(order, row.round, row.failures, row.next_try, row.due)


def _attempt(row: Row[Any]) -> AttemptRecord:
    attempt = Attempt(
        lease_id=row.lease_id,
        order_id=row.order_id,
        member=row.member,
        fedid=row.fedid,
        address=row.address,
        state=AttemptState(row.state),
        code=row.code,
        reason=row.reason,
        started=row.started,
        changed=row.changed,
        expires=row.expires,
        name=row.name,
        sent=SENT.validate_json(row.sent),
        access=Access() if row.access is None else ACCESS.validate_json(row.access),
    )
    return AttemptRecord(attempt, row.round, row.revision, row.seconds, row.heard, row.number, row.fresh_due)
