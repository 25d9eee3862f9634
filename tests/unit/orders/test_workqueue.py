"""The queue of keys: what hangs gives its place away, and is still looked at by one worker at a time."""

from __future__ import annotations

import asyncio
from datetime import datetime

from federation_member.orders.workqueue import LONG, WorkQueue
from tests.support.virtual_time import clock, run


def test_what_hangs_holds_up_nothing_but_itself() -> None:
    async def scenario() -> None:
        looked: list[str] = []
        at_once: set[str] = set()
        let_go = asyncio.Event()

        async def look(key: str) -> datetime | None:
            assert key not in at_once
            at_once.add(key)
            looked.append(key)
            if key.startswith("hangs"):
                await let_go.wait()
            at_once.discard(key)
            return None

        queue = WorkQueue("test", look, clock, 2)
        working = asyncio.create_task(queue.run())
        for number in range(8):
            queue.wake(f"hangs {number}")
        queue.wake("quick")
        queue.wake("hangs 0")
        await asyncio.sleep(LONG * 5)
        assert "quick" in looked
        queue.wake("hangs 0")  # it is being looked at: later
        let_go.set()
        await asyncio.sleep(LONG)
        assert looked.count("hangs 0") == 2
        assert queue.idle()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    run(scenario())


def test_no_more_than_the_workers_look_at_once_while_nothing_hangs() -> None:
    async def scenario() -> None:
        most, now = 0, 0

        async def look(_key: str) -> datetime | None:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await asyncio.sleep(LONG * 0.9)
            now -= 1
            return None

        queue = WorkQueue("test", look, clock, 3)
        working = asyncio.create_task(queue.run())
        for number in range(20):
            queue.wake(str(number))
        await asyncio.sleep(LONG * 20)
        assert (most, queue.idle()) == (3, True)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    run(scenario())
