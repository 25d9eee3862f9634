"""What the rest relies on in a transaction: all or nothing, durable before told, one failure hurts nobody else."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from fedkit import store
from fedkit.store import QUICK, Database, Tx

metadata = MetaData()
numbers = Table("numbers", metadata, Column("n", Integer, primary_key=True))
texts = Table("texts", metadata, Column("id", Integer, primary_key=True), Column("a", Text), Column("b", Text))


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


# What was deleted


def left_of(folder: Path, secret: str) -> list[str]:
    """The files in which it stands."""
    return [file.name for file in folder.iterdir() if secret.encode() in file.read_bytes()]


async def until_swept(folder: Path, secret: str) -> None:
    """It stands nowhere any more."""
    async with asyncio.timeout(60):
        while left_of(folder, secret):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is emptied at once."""
    monkeypatch.setattr(store, "SWEEP_AFTER", 0.01)


async def test_what_was_overwritten_or_deleted_is_in_no_file_soon(tmp_path: Path, soon: None) -> None:
    async with Database(f"sqlite:///{tmp_path / 'a.db'}") as database:
        metadata.create_all(database.engine)
        sizes = enumerate((10, 3000, 90_000))
        rows = [{"id": n, "a": f"kept{n}" * size, "b": f"overwritten{n}" * size} for n, size in sizes]
        await database.run(lambda tx: tx.conn.execute(insert(texts), rows))
        assert left_of(tmp_path, "overwritten")
        await database.run(lambda tx: tx.conn.execute(update(texts).values(b="")))
        await until_swept(tmp_path, "overwritten")
        assert left_of(tmp_path, "kept")
        await database.run(lambda tx: tx.conn.execute(delete(texts)))
        await until_swept(tmp_path, "kept")


async def test_the_log_is_emptied_though_others_read_and_were_killed(tmp_path: Path, soon: None) -> None:
    file = tmp_path / "a.db"
    killed = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('PRAGMA journal_mode=WAL'); db.execute('CREATE TABLE texts (id INTEGER PRIMARY KEY, a TEXT, b TEXT)')\n"
        "db.execute('INSERT INTO texts VALUES (1, ?, 1)', ('secret' * 1000,))\n"
        "db.execute('DELETE FROM texts'); os._exit(9)"
    )
    await (await asyncio.create_subprocess_exec(sys.executable, "-c", killed, str(file))).wait()
    assert left_of(tmp_path, "secret") == ["a.db-wal"]
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM texts").fetchall()
    async with Database(f"sqlite:///{file}") as database:
        await asyncio.sleep(0.2)
        assert left_of(tmp_path, "secret")
        await database.run(lambda tx: tx.conn.execute(insert(texts).values(id=2)))  # nobody waits for the reader
        reader.close()
        await until_swept(tmp_path, "secret")


rows = st.integers(0, 20)
steps = st.lists(
    st.tuples(rows, st.sampled_from(["insert", "overwrite", "delete"]), st.sampled_from([9, 700, 4050, 9000])),
    max_size=60,
)


@settings(max_examples=30)
@given(steps)
def test_no_page_keeps_what_its_rows_were(steps: list[tuple[int, str, int]]) -> None:
    """However pages are split, merged and filled again."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Database(f"sqlite:///{folder}/a.db").engine
        metadata.create_all(engine)

        def write(conn: Connection, number: int, deed: str, size: int) -> None:
            conn.execute(
                delete(texts).where(texts.c.id == number)
                if deed != "overwrite"
                else update(texts).where(texts.c.id == number).values(b="-" * size)
            )
            if deed == "insert":
                conn.execute(insert(texts).values(id=number, a="a" * (size % 800), b="b" * size + "secret"))

        with engine.connect() as conn:
            for step in steps:
                write(conn, *step)
            conn.execute(update(texts).values(b=""))
            conn.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            assert left_of(Path(folder), "secret") == []
        engine.dispose()
