"""The tables, on both databases: migrations, the numbering of events, claims."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select

from federation_member.orders import leases
from federation_member.orders.leases import Lease
from federation_member.orders.model import OrderState
from federation_member.orders.scheduler import new_record
from federation_member.orders.store import HAS_TIME, OrderStore, load, read_events, waiting
from federation_member.orders.tables import metadata, order_counter, order_events, orders
from fedkit.mesh.api import Peer
from fedkit.migrations import upgrade
from fedkit.protocol.lending import ComputeSpec, LeaseState
from fedkit.store import Database, Tx
from tests.unit.orders.examples import START, an_order

MIGRATIONS = "federation_member.migrations"


@pytest.fixture
async def db(database_url: str):  # type: ignore[no-untyped-def]
    """A migrated database."""
    async with Database(database_url) as database:
        upgrade(database.engine, MIGRATIONS)
        yield database


def book() -> OrderStore:
    """A borrower's book whose clock stands still."""
    return OrderStore(lambda: START, lambda order_id, due: None)


def a_lease(lease_id: str) -> Lease:
    """An accepted lease."""
    return Lease(
        id=lease_id,
        borrower=Peer("a" * 40, "fm.site-a.test"),
        project="project",
        user="alice",
        account="federation",
        spec=ComputeSpec(image="debian"),
        flavour=None,
        state=LeaseState.ACCEPTED,
        code="",
        reason="",
        revision=1,
        created=START,
        changed=START,
        expires=START + timedelta(minutes=10),
        due=START,
        instance=None,
        tunnel=None,
        tunnels=(),
    )


async def test_migrations_make_the_tables_of_the_code(db: Database) -> None:
    with db.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    ours = [d for d in differences if not (isinstance(d, tuple) and d[0].startswith("remove_"))]
    assert ours == []


async def test_migrations_run_once_whoever_starts_at_the_same_time(database_url: str) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("SQLite serves one process")
    first, second = Database(database_url), Database(database_url)
    ran = await asyncio.gather(*(asyncio.to_thread(upgrade, each.engine, MIGRATIONS) for each in (first, second)))
    assert sorted(map(bool, ran)) == [False, True]
    assert upgrade(first.engine, MIGRATIONS) == []
    for each in (first, second):
        await each.close()


async def test_an_order_is_read_as_it_was_written(db: Database) -> None:
    store = book()
    record = new_record(
        an_order(
            valid_from=datetime(2026, 2, 1, 3, 4, 5, 678901, tzinfo=UTC),
            spec=ComputeSpec(image="ümläut", user_data="#!/bin/sh\n" * 1000),
        )
    )
    await db.run(lambda tx: store.add(tx, record))
    assert await db.read(lambda conn: load(conn, record.order.id)) == record
    changed = await db.run(
        lambda tx: store.change(tx, record, state=OrderState.PENDING, reason="x" * 5000, failures=3, due=START)
    )
    read = await db.read(lambda conn: load(conn, record.order.id))
    assert read == changed
    assert read is not None
    assert (read.order.revision, len(read.order.reason), read.failures, read.due) == (2, 1024, 3, START)


async def test_a_change_that_changes_nothing_makes_no_event(db: Database) -> None:
    store = book()
    record = new_record(an_order(reason="why"))
    await db.run(lambda tx: store.add(tx, record))
    assert await db.run(lambda tx: store.change(tx, record, reason="why")) == record
    await db.run(lambda tx: store.change(tx, record, due=START))
    assert len(await db.read(lambda conn: read_events(conn, [], 10))) == 1


async def test_a_reader_of_events_misses_none(db: Database) -> None:
    """Many write at once; whoever remembers the last number it saw sees every event, once, in order."""
    store = book()
    seen: list[int] = []
    done = asyncio.Event()

    def write(tx: Tx) -> None:
        record = new_record(an_order())
        store.add(tx, record)
        for number in range(3):
            record = store.change(tx, record, reason=str(number))

    async def read() -> None:
        while True:
            last = done.is_set()
            after = order_events.c.sequence > (seen[-1] if seen else 0)
            events = await db.read(partial(read_events, where=[after], limit=10))
            seen.extend(event.sequence for event in events)
            if last and not events:
                return

    reader = asyncio.create_task(read())
    await asyncio.gather(*(db.run(write) for _ in range(50)))
    done.set()
    await reader
    assert seen == list(range(1, 201))


async def test_what_waits_is_found_without_the_rest(db: Database) -> None:
    store = book()
    due = new_record(an_order())
    fulfilled = new_record(an_order(state=OrderState.FULFILLED))
    deleting = new_record(an_order(state=OrderState.DELETING))
    for record in (due, fulfilled, deleting):
        await db.run(lambda tx, r=record: store.add(tx, r))  # type: ignore[misc]
    await db.run(lambda tx: store.change(tx, due, due=START))
    found = dict(await db.read(waiting))
    assert found == {due.order.id: START, deleting.order.id: None}


async def test_a_lease_is_read_as_it_was_written(db: Database) -> None:
    lease = a_lease("00000000-0000-4000-8000-000000000001")
    await db.run(lambda tx: leases.add(tx.conn, lease))
    assert await db.read(lambda conn: leases.load(conn, lease.id)) == lease
    saved = await db.run(lambda tx: leases.save(tx, lease, START, state=LeaseState.RUNNING))
    assert saved.revision == 2
    assert await db.read(lambda conn: leases.load(conn, lease.id)) == saved
    assert await db.read(leases.held) == {lease.id: LeaseState.RUNNING}


async def test_a_claim_keeps_other_processes_away_until_it_lapses(db: Database) -> None:
    lease = a_lease("00000000-0000-4000-8000-000000000001")
    await db.run(lambda tx: leases.add(tx.conn, lease))
    minute = timedelta(minutes=1)

    def claim(worker: str, now: datetime) -> bool:
        with db.engine.begin() as conn:
            return leases.claim(conn, lease.id, worker, now, now + minute)

    assert claim("one", START)
    assert not claim("two", START)
    assert claim("one", START)  # again, after it crashed
    assert claim("two", START + 2 * minute)
    await db.run(lambda tx: leases.unclaim(tx.conn, lease.id, "two"))
    assert claim("one", START + 2 * minute)


async def test_a_claim_under_way_is_not_waited_for(db: Database) -> None:
    if db.is_sqlite:
        pytest.skip("SQLite has one writer")
    lease = a_lease("00000000-0000-4000-8000-000000000001")
    await db.run(lambda tx: leases.add(tx.conn, lease))
    later = START + timedelta(minutes=1)
    with db.engine.begin() as one, db.engine.begin() as other:
        assert leases.claim(one, lease.id, "one", START, later)
        assert not leases.claim(other, lease.id, "two", START, later)


async def test_the_counter_has_its_row(db: Database) -> None:
    assert await db.read(lambda conn: conn.execute(select(order_counter.c.events)).scalar_one()) == 0


async def test_finding_what_is_due_uses_the_index(db: Database) -> None:
    """Ten thousand orders that wait for nothing are not read to find one that does."""
    if not db.is_sqlite:
        pytest.skip("PostgreSQL's planner chooses by statistics")

    def plan(tx: Tx) -> str:
        query = select(orders.c.id).where(HAS_TIME)
        text = str(query.compile(tx.conn, compile_kwargs={"literal_binds": True}))
        return str(tx.conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").fetchall())

    assert "orders_by_due" in await db.run(plan)
