"""What is forgotten and what is kept, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Table, func, insert, select

from federation_member.orders import retention
from federation_member.orders.model import Attempt, AttemptState, OrderState
from federation_member.orders.retention import Retention
from federation_member.orders.scheduler import new_record
from federation_member.orders.store import AttemptRecord, OrderStore
from federation_member.orders.tables import order_attempts, order_events, order_requests, order_uses, orders
from fedkit.migrations import upgrade
from fedkit.store import Database, Tx
from tests.unit.orders.examples import START, an_order

KEEP = timedelta(days=90)
KEEP_USAGE = timedelta(days=1100)
LATER = START + KEEP + timedelta(seconds=1)
YOUNG = START + timedelta(seconds=2)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """A migrated database."""
    async with Database(database_url) as database:
        upgrade(database.engine, "federation_member.migrations")
        yield database


def forgetful(db: Database) -> Retention:
    """Forgets what was over at `START`."""
    return Retention(db, lambda: LATER, KEEP, KEEP_USAGE)


def order(tx: Tx, state: OrderState, *attempts: AttemptState, **changes: Any) -> str:
    """An order with its attempts."""
    made = an_order(state=state, **changes)
    store = OrderStore(lambda: START, lambda order_id, due: None)
    store.add(tx, new_record(made))
    for number, attempt in enumerate(attempts):
        told = Attempt(f"{number}{made.id[1:]}", made.id, "b", "b" * 40, "fm.b", attempt, "", "", START, START, None)
        store.add_attempt(tx.conn, AttemptRecord(told, 1, 1, 600, START))
    return made.id


async def left(db: Database, table: Table) -> set[str]:
    """Which of a table's rows are there, by their first column."""
    rows = await db.read(lambda conn: conn.execute(select(table)).all())
    return {str(row[0]) for row in rows}


async def test_ended_orders_are_forgotten_when_nobody_holds_anything(db: Database) -> None:
    def fill(tx: Tx) -> set[str]:
        order(tx, OrderState.DELETED, AttemptState.RELEASED, AttemptState.REFUSED)
        order(tx, OrderState.CLOSED, AttemptState.FAILED)
        return {
            order(tx, OrderState.DELETED, created=YOUNG, changed=YOUNG),
            order(tx, OrderState.CLOSED, changed=YOUNG),
            order(tx, OrderState.CLOSED, AttemptState.RELEASING),
            order(tx, OrderState.DELETING, AttemptState.RELEASED),
            order(tx, OrderState.FULFILLED, AttemptState.RUNNING),
            order(tx, OrderState.OPEN),
        }

    kept = await db.run(fill)
    assert (await forgetful(db).forget())["orders"] == 2
    assert await left(db, orders) == kept
    assert len(await left(db, order_attempts)) == 3


async def test_a_network_is_forgotten_after_the_machines_that_joined_it(db: Database) -> None:
    def join(tx: Tx, state: OrderState) -> tuple[str, str]:
        network, machine = order(tx, OrderState.DELETED), order(tx, state)
        tx.conn.execute(insert(order_uses).values(order_id=machine, used_id=network))
        return network, machine

    await db.run(lambda tx: join(tx, OrderState.DELETED))
    kept = await db.run(lambda tx: join(tx, OrderState.DELETING))
    assert (await forgetful(db).forget())["orders"] == 2
    assert await left(db, orders) == set(kept)


async def test_old_events_go_and_the_numbers_go_on(db: Database) -> None:
    await db.run(lambda tx: [order(tx, OrderState.OPEN) for _ in range(3)])
    kept = await db.run(lambda tx: order(tx, OrderState.OPEN, changed=YOUNG))
    assert (await forgetful(db).forget())["events"] == 3
    assert await left(db, order_events) == {"4"}
    await db.run(lambda tx: order(tx, OrderState.OPEN, changed=YOUNG))
    assert await left(db, order_events) == {"4", "5"}
    assert kept in await left(db, orders)


async def test_idempotency_keys_are_kept_for_a_week(db: Database) -> None:
    def note(tx: Tx, key: str, age: timedelta) -> None:
        who = {"project": "project", "owner": "alice", "body_hash": "", "batch": key, "created": LATER - age}
        tx.conn.execute(insert(order_requests).values(id=key, key=key, **who))

    await db.run(lambda tx: note(tx, "young", retention.KEEP_KEYS))
    await db.run(lambda tx: note(tx, "old", retention.KEEP_KEYS + timedelta(seconds=1)))
    assert (await forgetful(db).forget())["idempotency_keys"] == 1
    assert await left(db, order_requests) == {"young"}
    await Retention(db, lambda: LATER, timedelta(days=1), KEEP_USAGE).forget()
    assert await left(db, order_requests) == set()  # never longer than the orders that they name


async def test_much_is_forgotten_in_small_steps(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 7)
    await db.run(lambda tx: [order(tx, OrderState.DELETED, AttemptState.RELEASED) for _ in range(30)])
    steps: list[int] = []
    run = db.run

    async def count(function: Any) -> Any:
        steps.append(await run(function))
        return steps[-1]

    monkeypatch.setattr(db, "run", count)
    assert (await forgetful(db).forget()) == {"orders": 30, "events": 30, "idempotency_keys": 0, "spells": 0}
    assert steps == [7, 7, 7, 7, 2, 0, 7, 7, 7, 7, 2, 0, 0, 0]
    for table in (orders, order_attempts, order_events):
        assert await db.read(lambda conn, t=table: conn.execute(select(func.count()).select_from(t)).scalar()) == 0  # type: ignore[misc]


async def test_it_runs_by_itself(db: Database) -> None:
    await db.run(lambda tx: order(tx, OrderState.DELETED))
    async with forgetful(db).running():
        while await left(db, orders):
            pass
