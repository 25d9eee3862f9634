"""Blocking calls in a bounded number of threads that nobody waits for.

openstacksdk blocks. `concurrent.futures` would have the process wait at its end for calls that hang; these threads are daemons,
and end with it. A caller that gives up (a time-out, a cancellation) is free at once; its thread keeps its place until the
socket's own time-out ends it, so that a cloud which hangs never holds more than `size` threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """At most `size` calls run at the same time; the others wait for their turn, first come first served."""

    def __init__(self, size: int) -> None:
        self._free = asyncio.Semaphore(size)

    async def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, or raise what it raises."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if outcome.done():
                return
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)  # type: ignore[arg-type]  # None only where T is

        def work() -> None:
            result, error = None, None
            try:
                result = call()
            except BaseException as caught:
                error = caught
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, result, error)

        threading.Thread(target=work, name="openstack", daemon=True).start()
        return await outcome
