"""Keys that need looking at, now or at a time: the event-driven half of every level-triggered service here.

    wake(key) ─────────────┐
    wake(key, at=time) ──► heap of (time, key) ──► N workers: next_time = await look(key) ──► heap

A key says only *where* to look; what is to be done stands in the tables. So a key may be woken too often, or be lost in a
crash (the owner fills the queue from its tables at start). One key is never looked at by two workers at once; if it is
woken meanwhile, it is looked at again. When looking fails, it is repeated after a growing pause, and the rest goes on.
A look that takes long (somebody does not answer) gives its worker's place away, so what hangs holds up nothing but itself.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import structlog

from fedkit.clock import Clock

log = structlog.get_logger()

FIRST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 300.0
LONG = 2.0  # seconds after which a look counts as waiting for somebody

Look = Callable[[str], Awaitable[datetime | None]]


class _Place:
    """A worker's place, taken; given back once, by who has it or because it takes too long."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free: asyncio.Semaphore | None = free
        self._timer = asyncio.get_running_loop().call_later(LONG, self.give)

    def give(self) -> None:
        """Let somebody else have it."""
        self._timer.cancel()
        if self._free is not None:
            self._free.release()
            self._free = None


class WorkQueue:
    """Looks at keys when they are due; `look` returns when to look next, or None to be woken."""

    def __init__(self, name: str, look: Look, clock: Clock, workers: int) -> None:
        self._name = name
        self._look = look
        self._clock = clock
        self._workers = workers
        self._heap: list[tuple[datetime, str]] = []
        self._due: dict[str, datetime] = {}  # the earliest time of each key; other heap entries are stale
        self._busy: set[str] = set()
        self._failures: dict[str, int] = {}
        self._changed = asyncio.Event()

    def wake(self, key: str, at: datetime | None = None) -> None:
        """Have `key` looked at, at `at` at the latest (default: now). Only on the event loop."""
        at = at or self._clock()
        if key in self._due and self._due[key] <= at:
            return
        self._due[key] = at
        if key not in self._busy:
            heapq.heappush(self._heap, (at, key))
            self._changed.set()

    def recheck(self) -> None:
        """Compare all due times with the clock again, because it jumped."""
        self._changed.set()

    def idle(self) -> bool:
        """Tell whether nothing is being looked at or due now."""
        now = self._clock()
        return not self._busy and not any(at <= now for at in self._due.values())

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            free = asyncio.Semaphore(self._workers)
            while True:
                await free.acquire()
                key = await self._next()
                self._busy.add(key)
                group.create_task(self._work(key, free), name=f"{self._name} {key}")

    async def _next(self) -> str:
        while True:
            self._changed.clear()
            while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            pause = (self._heap[0][0] - self._clock()).total_seconds() if self._heap else None
            if pause is not None and pause <= 0:
                key = heapq.heappop(self._heap)[1]
                del self._due[key]
                return key
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _work(self, key: str, free: asyncio.Semaphore) -> None:
        place = _Place(free)
        try:
            at = await self._look(key)
            self._failures.pop(key, None)
        except Exception:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            pause = min(FIRST_PAUSE * 2 ** min(failures, 20), LONGEST_PAUSE)
            log.exception("work_failed", queue=self._name, key=key, again_in=pause)
            at = self._clock() + timedelta(seconds=pause)
        finally:
            self._busy.discard(key)
            place.give()
        woken = self._due.pop(key, None)  # by somebody else, while we were looking
        if at is not None or woken is not None:
            self.wake(key, min(time for time in (at, woken) if time is not None))
