"""Transactions on SQLite or PostgreSQL, written once.

A transaction is a plain function of a `Tx`: it reads and writes through SQLAlchemy Core and returns. It never
awaits, so it is short, and whatever it wrote becomes visible at once or not at all:

    await db.run(fn) ──► BEGIN, fn(tx), COMMIT ──► result, after-commit callbacks
                         (SQLite: all functions that wait share one COMMIT, each in a savepoint)

That is what exactly-once needs: the state change and the outbox row are written by the same function.
`tx.after_commit(f)` calls `f` on the event loop once the commit is durable; it is only a hint to look (a crash
may lose it), so whoever is woken must find its work in the tables.

SQLite runs with WAL and `synchronous=FULL`: a commit survives power loss; sharing the commit pays for that. While commits are quick
(`QUICK`: a disk that takes 0.3 ms), they run on the event loop itself, because waking a thread and being woken by it takes as long
again and, on a busy machine, several times as long; functions that come one by one run at once, those that come together share
the commit at the end of that turn of the loop. Where the disk is slow or another process holds the lock, a writer thread takes
them, in the same order, until it has nothing left and commits are quick again.
What is deleted or overwritten is gone from SQLite's files `SWEEP_AFTER` later, for keys are among it: pages are overwritten with zeros
(`secure_delete`), and the write-ahead log, which has them as they were, is emptied some seconds after a commit and after an opening.

On PostgreSQL each function has its own connection; one that lost a race (SQLSTATE 40001, 40P01) is run again,
so a function must have no effect outside of its `Tx`. Lock rows with `.with_for_update()` (SQLite ignores it and needs
none: there is one writer).
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger()

T = TypeVar("T")

BATCH = 128  # transactions that may share one SQLite commit
QUICK = 0.002  # seconds that a commit may keep the event loop
MEMORY = 8  # commits over which their time is averaged
PATIENCE = 30_000  # milliseconds that the writer thread waits for a lock
POSTGRES_THREADS = 8
READER_THREADS = 2
SWEEP_AFTER = 5.0  # seconds after a commit that what it deleted may still stand in the log
SWEEP_PATIENCE = 100  # milliseconds that emptying the log waits for readers, and keeps writers waiting
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", f"busy_timeout={PATIENCE}")
RETRIES = 5
RETRYABLE_SQLSTATES = {"40001", "40P01"}  # serialization failure, deadlock


@dataclass
class Tx:
    """One open transaction: a SQLAlchemy connection, and what to do once it is committed.

    `driver` is SQLite's own connection under it, for statements that are run so often that the toolkit's overhead counts.
    """

    conn: Connection
    driver: sqlite3.Connection | None = None
    callbacks: list[Callable[[], None]] = field(default_factory=list)
    last: list[Callable[[], None]] = field(default_factory=list)

    def at_the_end(self, write: Callable[[], None]) -> None:
        """Have `write` run in this transaction after its function has returned.

        For rows that everybody locks, such as a counter: locked last and by all in the same order, they hold up nobody for long,
        and two transactions never wait for one another's.
        """
        self.last.append(write)

    def finish(self) -> None:
        """Run what was left to the end; whoever commits calls this before."""
        for write in self.last:
            write()

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback` on the event loop after this transaction is durable; never if it is rolled back."""
        self.callbacks.append(callback)


@dataclass
class _Job:
    """One function waiting for its transaction, and where its result goes."""

    function: Callable[[Tx], Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    callbacks: list[Callable[[], None]] = field(default_factory=list)

    def deliver(self) -> None:
        """Hand the result over; runs on the event loop."""
        for callback in self.callbacks:
            try:
                callback()
            except Exception:  # a bug in whoever is woken is not the caller's: the transaction stands
                log.exception("after_commit_failed", callback=repr(callback))
        if self.future.done():
            return  # the caller was cancelled; the transaction stands
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """A database by URL (`sqlite:///PATH` or `postgresql://…`); `async with` opens and closes it."""

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.engine: Engine = _sqlite_engine(parsed) if self.is_sqlite else create_engine(parsed, pool_size=16)
        self._waiting: list[_Job] = []
        self._gathering = (
            False  # whether this turn of the event loop has brought a job, so that the next ones share a commit
        )
        self._calm = True  # whether jobs come one by one, so that there is nothing to wait for
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._handed = 0  # jobs that the writer thread has not given back
        self._pace = 0.0  # seconds that a commit takes, of late
        self._sweep: asyncio.TimerHandle | asyncio.Future[bool] | None = None  # that will empty the log
        self._pool = ThreadPoolExecutor(READER_THREADS if self.is_sqlite else POSTGRES_THREADS, "db")

    async def __aenter__(self) -> Database:
        self._loop = asyncio.get_running_loop()
        if self.is_sqlite:
            self._here = self.engine.connect()
            _driver(self._here).execute("PRAGMA busy_timeout=0")  # the loop waits for nobody's lock
            self._writer = threading.Thread(target=self._write_batches, name="db-writer", daemon=True)
            self._writer.start()
            self._sweep_soon()  # whoever was here before may have been killed
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what is waiting, then close every connection."""
        if self._writer is not None:
            self._end_turn()
            self._jobs.put(None)
            await asyncio.to_thread(self._writer.join)
            self._writer = None
            if self._sweep is not None:
                self._sweep.cancel()  # whoever closes the last connection empties the log
            self._here.close()
        await asyncio.to_thread(self._pool.shutdown)
        self.engine.dispose()

    async def run(self, function: Callable[[Tx], T]) -> T:
        """Run `function` in a transaction and return its result once that is durable."""
        job = _Job(function, self._loop.create_future())
        if not self.is_sqlite:
            self._pool.submit(self._run_alone, job)
        else:
            self._waiting.append(job)
            if not self._gathering:
                self._gathering = True
                self._loop.call_soon(self._end_turn)
                if self._calm:
                    self._commit_waiting()
        return await job.future  # type: ignore[no-any-return]

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Run a function that only reads; it never waits for a writer."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, function)

    def _read(self, function: Callable[[Connection], T]) -> T:
        with self.engine.connect() as conn:
            return function(conn)

    def _run_alone(self, job: _Job) -> None:
        try:
            job.result, job.callbacks = self._retry_races(job.function)
        except Exception as error:
            job.error = error
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(job.deliver)

    def _retry_races(self, function: Callable[[Tx], T]) -> tuple[T, list[Callable[[], None]]]:
        for attempt in range(RETRIES):
            try:
                with self.engine.begin() as conn:
                    tx = Tx(conn)
                    result = function(tx)
                    tx.finish()
            except DBAPIError as error:
                lost_a_race = getattr(error.orig, "sqlstate", None) in RETRYABLE_SQLSTATES
                if not lost_a_race or attempt == RETRIES - 1:
                    raise
            else:
                return result, tx.callbacks
        raise AssertionError("unreachable")

    def _end_turn(self) -> None:
        """Run what came in this turn of the event loop."""
        self._gathering = False
        self._calm = len(self._waiting) <= 1
        while self._waiting:
            self._commit_waiting()

    def _commit_waiting(self) -> None:
        """Run what is waiting: here, or in the writer thread while that is at work or the disk is slow."""
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        if not self._handed and self._pace <= QUICK and self._begin_here():
            self._take_back(batch, _commit(self._here, batch))
            return
        self._handed += len(batch)
        for job in batch:
            self._jobs.put(job)

    def _begin_here(self) -> bool:
        """Begin unless another process writes; the thread can wait for that, and tells whatever else is wrong."""
        try:
            _driver(self._here).execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True

    def _take_back(self, batch: list[_Job], seconds: float) -> None:
        self._pace += (seconds - self._pace) / MEMORY
        for job in batch:
            job.deliver()
        self._sweep_soon()

    def _take_back_from_thread(self, batch: list[_Job], seconds: float) -> None:
        self._handed -= len(batch)
        self._take_back(batch, seconds)

    def _sweep_soon(self) -> None:
        if self._sweep is None and self._writer is not None:
            self._sweep = self._loop.call_later(SWEEP_AFTER, self._begin_sweep)

    def _begin_sweep(self) -> None:
        self._sweep = self._loop.run_in_executor(self._pool, self._empty_log)
        self._sweep.add_done_callback(self._swept)

    def _swept(self, sweep: asyncio.Future[bool]) -> None:
        self._sweep = None
        if sweep.cancelled():
            return
        if error := sweep.exception():
            log.error("log_not_emptied", reason=str(error))
        if error or not sweep.result():
            self._sweep_soon()

    def _empty_log(self) -> bool:
        """Empty the write-ahead log; false if somebody was reading from it or writing to it all the time."""
        with self.engine.connect() as conn:
            driver = _driver(conn)
            driver.execute(f"PRAGMA busy_timeout={SWEEP_PATIENCE}")
            busy, *_ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            driver.execute(f"PRAGMA busy_timeout={PATIENCE}")
            return not busy

    def _write_batches(self) -> None:
        with self.engine.connect() as conn:
            while (job := self._jobs.get()) is not None:
                batch = [job]
                stop = False
                while len(batch) < BATCH:
                    try:
                        following = self._jobs.get_nowait()
                    except queue.Empty:
                        break
                    if following is None:
                        stop = True
                        break
                    batch.append(following)
                seconds = _commit(conn, batch)
                if not self._loop.is_closed():
                    self._loop.call_soon_threadsafe(self._take_back_from_thread, batch, seconds)
                if stop:
                    return


def _commit(conn: Connection, batch: list[_Job]) -> float:
    """Run a batch in one transaction, which may have begun, and return the seconds it took."""
    # BEGIN, COMMIT and savepoints go to the driver: the toolkit's own bookkeeping costs more than SQLite's work.
    driver = _driver(conn)
    started = time.monotonic()
    try:
        if not driver.in_transaction:
            driver.execute("BEGIN IMMEDIATE")
        if len(batch) == 1:
            _run_alone(conn, driver, batch[0])
        else:
            for job in batch:
                _run_in_savepoint(conn, driver, job)
        driver.execute("COMMIT")
    except Exception as error:  # the COMMIT itself failed (disk full, locked): nobody's work is durable
        for job in batch:
            job.error, job.callbacks = job.error or error, []
        driver.rollback()
    finally:
        conn.rollback()  # ends what the toolkit began on its side; the driver's transaction is over
    return time.monotonic() - started


def _run_alone(conn: Connection, driver: sqlite3.Connection, job: _Job) -> None:
    """Run the only job of a transaction, which it undoes whole if it fails."""
    tx = Tx(conn, driver)
    try:
        job.result = job.function(tx)
        tx.finish()
    except Exception as error:
        job.error = error
        driver.execute("ROLLBACK")
        driver.execute("BEGIN")
    else:
        job.callbacks = tx.callbacks


def _run_in_savepoint(conn: Connection, driver: sqlite3.Connection, job: _Job) -> None:
    tx = Tx(conn, driver)
    driver.execute("SAVEPOINT job")
    try:
        job.result = job.function(tx)
        tx.finish()
    except Exception as error:
        job.error = error
        driver.execute("ROLLBACK TO job")
    else:
        job.callbacks = tx.callbacks
    driver.execute("RELEASE job")


def _driver(conn: Connection) -> sqlite3.Connection:
    driver: Any = conn.connection.driver_connection
    return driver  # type: ignore[no-any-return]


def _sqlite_engine(url: Any) -> Engine:
    engine = create_engine(url, connect_args={"isolation_level": None, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    return engine
