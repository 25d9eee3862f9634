"""Time that a test owns: hours of back-off pass in milliseconds, and every run is the same.

    run(scenario())            on a loop whose clock jumps to the next timer as soon as nothing else can happen
    clock()                    the same time as a date, for what takes a `Clock`

A database must not bring threads in, whose work the loop cannot see: `InlineDatabase` runs transactions where they are called.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, text

from fedkit.store import Database, Tx

T = TypeVar("T")
LIVELOCK = 200_000  # turns of the loop
EPOCH = 1_800_000_000.0  # seconds: where the clock starts


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait: tells the loop's clock how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.standstill = 0  # turns of the loop since time last moved

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing can ever happen any more: the scenario waits for ever"
            self.standstill = 0 if timeout > 0 else self.standstill + 1
            self.now += timeout
        assert self.standstill < LIVELOCK, "something goes round for ever without time passing"
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with its own time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def clock() -> datetime:
    """The loop's time as a date."""
    return datetime.fromtimestamp(EPOCH + asyncio.get_running_loop().time(), UTC)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run a scenario to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


class Crash(Exception):
    """The process dies here: none of its commits succeeds any more."""


class InlineDatabase(Database):
    """A SQLite database without threads. `on_commit` is called as ("before" | "after") each commit and may raise `Crash`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.on_commit: Callable[[str], None] = lambda moment: None

    async def __aenter__(self) -> InlineDatabase:
        return self

    async def close(self) -> None:
        self._pool.shutdown()
        self.engine.dispose()

    async def run(self, function: Callable[[Tx], T]) -> T:
        loop = asyncio.get_running_loop()
        with self.engine.connect() as conn:
            conn.execute(text("PRAGMA synchronous=OFF"))
            conn.commit()
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            tx = Tx(conn)
            try:
                result = function(tx)
                tx.finish()
                self.on_commit("before")
            except BaseException:
                conn.exec_driver_sql("ROLLBACK")
                raise
            conn.exec_driver_sql("COMMIT")
        self.on_commit("after")
        for callback in tx.callbacks:
            loop.call_soon(callback)
        await asyncio.sleep(0)
        return result

    async def read(self, function: Callable[[Connection], T]) -> T:
        with self.engine.connect() as conn:
            result = function(conn)
        await asyncio.sleep(0)
        return result
