"""Forgets what nobody needs any more, so that the borrower's book does not grow for ever.

    ended orders     `keep` after their last change, with their attempts; not before every lender has confirmed
    events           `keep` after they happened, also those of orders that live on
    idempotency keys `KEEP_KEYS` after they came: longer than any client repeats a request
    spells           `keep_usage` after they ended: accounts outlive what they are of

The lender's book of leases needs none of this: what has ended there is forgotten after a day (`leases.RETENTION`).

Each step is one small transaction, so nobody waits for it, and a crash in between costs nothing: the next run goes on. Several
processes on one database may do it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection, delete, select
from sqlalchemy.exc import SQLAlchemyError

from federation_member.orders.model import OrderState
from federation_member.orders.store import FINAL
from federation_member.orders.tables import order_attempts, order_events, order_requests, order_uses, orders
from federation_member.usage import book
from fedkit.clock import Clock
from fedkit.store import Database

log = structlog.get_logger()

KEEP_KEYS = timedelta(days=7)
EVERY = 3600.0  # seconds between two runs
BATCH = 200  # rows of one kind that one transaction forgets
ENDED = [OrderState.CLOSED.value, OrderState.DELETED.value]

Step = Callable[[Connection, datetime], int]
"""Forgets at most `BATCH` of what is older than a time; tells how many that were."""


class Retention:
    """Forgets in the background; `keep` is how long a person may look back, `keep_usage` for how long there are accounts.

    `others` are steps for what stands on orders; they go by `keep` as well.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        keep: timedelta,
        keep_usage: timedelta,
        others: Mapping[str, Step] | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._keep = keep
        self._keep_usage = keep_usage
        self._others = others or {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Forget now and from time to time while the context is open."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self._run(), name="retention")
            yield
            task.cancel()

    async def forget(self) -> dict[str, int]:
        """Forget all that is old enough; tell how much of each kind."""
        now = self._clock()
        old, old_keys = now - self._keep, now - min(KEEP_KEYS, self._keep)
        return {
            "orders": await self._all(forget_orders, old),
            "events": await self._all(forget_events, old),
            "idempotency_keys": await self._all(forget_keys, old_keys),
            "spells": await self._all(forget_spells, now - self._keep_usage),
            **{kind: await self._all(step, old) for kind, step in self._others.items()},
        }

    async def _run(self) -> None:
        while True:
            try:
                forgotten = await self.forget()
            except SQLAlchemyError:  # the database is away or full; what is old stays old
                log.exception("retention_failed")
            else:
                if any(forgotten.values()):
                    log.info("forgotten", **forgotten)
            await asyncio.sleep(EVERY)

    async def _all(self, step: Step, before: datetime) -> int:
        total = 0
        while number := await self._db.run(lambda tx: step(tx.conn, before)):
            total += number
        return total


def forget_orders(conn: Connection, before: datetime) -> int:
    """Forget ended orders with their attempts: those that no lender and no other order knows of any more."""
    final = [state.value for state in FINAL]
    held = select(order_attempts.c.lease_id).where(
        order_attempts.c.order_id == orders.c.id, order_attempts.c.state.not_in(final)
    )
    used = select(order_uses.c.order_id).where(order_uses.c.used_id == orders.c.id)
    query = (
        select(orders.c.id)
        .where(orders.c.state.in_(ENDED), orders.c.created < before, orders.c.changed < before)
        .where(~held.exists(), ~used.exists())
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    ids = list(conn.execute(query).scalars())
    for column in (order_attempts.c.order_id, order_uses.c.order_id, orders.c.id):
        conn.execute(delete(column.table).where(column.in_(ids)))
    return len(ids)


def forget_events(conn: Connection, before: datetime) -> int:
    """Forget the oldest events; their numbers grow with time, so the first that is young enough ends the search."""
    t = order_events.c
    rows = conn.execute(select(t.sequence, t.at).order_by(t.sequence).limit(BATCH)).all()
    old = [row.sequence for row in rows if row.at < before]
    conn.execute(delete(order_events).where(t.sequence.in_(old)))
    return len(old)


def forget_keys(conn: Connection, before: datetime) -> int:
    """Forget idempotency keys; the orders that they made stay."""
    t = order_requests.c
    ids = list(conn.execute(select(t.id).where(t.created < before).limit(BATCH)).scalars())
    conn.execute(delete(order_requests).where(t.id.in_(ids)))
    return len(ids)


def forget_spells(conn: Connection, before: datetime) -> int:
    """Forget what ended long ago."""
    return book.forget(conn, before, BATCH)
