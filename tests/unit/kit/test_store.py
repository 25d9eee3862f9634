"""What the rest relies on in a transaction: all or nothing, durable before told, one failure hurts nobody else."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.exc import IntegrityError

from fedkit.store import QUICK, Database, Tx

metadata = MetaData()
numbers = Table("numbers", metadata, Column("n", Integer, primary_key=True))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url) as database:
        metadata.create_all(database.engine)
        yield database


def put(tx: Tx, number: int) -> int:
    tx.conn.execute(insert(numbers).values(n=number))
    return number


async def count(database: Database) -> int:
    return await database.read(lambda conn: conn.execute(select(func.count()).select_from(numbers)).scalar_one())


async def test_a_failing_transaction_leaves_nothing_and_does_not_hurt_those_that_share_its_commit(
    database: Database,
) -> None:
    def half(tx: Tx) -> None:
        put(tx, 1000)
        raise RuntimeError("in the middle")

    jobs = [database.run(lambda tx, n=n: put(tx, n)) for n in range(50)]  # type: ignore[misc]
    results = await asyncio.gather(*jobs[:25], database.run(half), *jobs[25:], return_exceptions=True)

    assert isinstance(results.pop(25), RuntimeError)
    assert results == list(range(50))
    assert await count(database) == 50


async def test_after_commit_is_called_once_the_row_can_be_read_and_never_after_a_rollback(database: Database) -> None:
    seen: list[int] = []

    def good(tx: Tx) -> None:
        put(tx, 1)
        tx.after_commit(lambda: seen.append(1))

    def bad(tx: Tx) -> None:
        tx.after_commit(lambda: seen.append(2))
        put(tx, 1)  # the same primary key again

    await database.run(good)
    with pytest.raises(IntegrityError):
        await database.run(bad)

    assert seen == [1]


async def test_a_bug_in_who_is_woken_neither_hides_the_result_nor_keeps_others_asleep(database: Database) -> None:
    woken: list[int] = []

    def write(tx: Tx) -> int:
        tx.after_commit(lambda: woken.remove(1))  # nothing to remove: ValueError
        tx.after_commit(lambda: woken.append(2))
        return put(tx, 5)

    assert await asyncio.wait_for(database.run(write), 30) == 5
    assert woken == [2]


async def test_a_cancelled_caller_does_not_undo_or_block_the_transaction(database: Database) -> None:
    woken = asyncio.Event()

    def write(tx: Tx) -> None:
        tx.after_commit(woken.set)
        put(tx, 7)

    task = asyncio.create_task(database.run(write))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    await asyncio.wait_for(woken.wait(), 30)
    assert await database.run(lambda tx: put(tx, 8)) == 8
    assert await count(database) == 2


async def test_what_was_committed_is_there_after_reopening(database_url: str) -> None:
    async with Database(database_url) as first:
        metadata.create_all(first.engine)
        await first.run(lambda tx: put(tx, 3))
    async with Database(database_url) as second:
        assert await count(second) == 1


async def test_another_process_that_writes_keeps_us_waiting_and_not_the_event_loop(tmp_path: Path) -> None:
    async with Database(f"sqlite:///{tmp_path / 'shared.db'}") as database:
        metadata.create_all(database.engine)
        other = sqlite3.connect(tmp_path / "shared.db", isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        writes = [asyncio.ensure_future(database.run(lambda tx, n=n: put(tx, n))) for n in range(3)]  # type: ignore[misc]
        while not database._handed:  # the loop goes round meanwhile  # noqa: ASYNC110
            await asyncio.sleep(0)
        later = asyncio.ensure_future(database.run(lambda tx: put(tx, 3)))
        await asyncio.sleep(0.01)
        assert not any(write.done() for write in [*writes, later])
        other.execute("COMMIT")
        other.close()
        assert await asyncio.gather(*writes, later) == [0, 1, 2, 3]


async def test_slow_commits_leave_the_event_loop_until_they_are_quick_again(tmp_path: Path) -> None:
    ran: list[tuple[int, str]] = []

    def work(number: int, seconds: float) -> None:
        ran.append((number, threading.current_thread().name))
        time.sleep(seconds)

    async with Database(f"sqlite:///{tmp_path / 'slow.db'}") as database:
        await database.run(lambda tx: work(0, 0))
        for number in range(1, 4):
            await database.run(lambda tx, n=number: work(n, 20 * QUICK))  # type: ignore[misc]
        number = 3
        while ran[-1][1] == "db-writer" or number < 5:
            number += 1
            await database.run(lambda tx, n=number: work(n, 0))  # type: ignore[misc]
    names = [name for _, name in ran]
    assert names[0] == threading.current_thread().name
    assert "db-writer" in names
    assert [n for n, _ in ran] == list(range(len(ran)))


async def test_one_transaction_after_the_other_lets_others_run(database: Database) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    for number in range(100):
        await database.run(lambda tx, n=number: put(tx, n))  # type: ignore[misc]
    counting.cancel()
    assert turns >= 50
