"""Calls that block, and may block for ever, in threads of their own, at most `limit` at once.

A thread that hangs keeps its place until the call comes back, so a lender that hangs costs `limit` threads and no more. The
threads are daemons: one that still hangs when the member ends does not hold it up, as those of a ThreadPoolExecutor would.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """At most `limit` calls at once."""

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)

    async def begin(self, work: Callable[[], T]) -> Future[T]:
        """Start `work` when there is a place; return its future, which must not be cancelled (shield it)."""
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        future: Future[T] = loop.create_future()
        future.add_done_callback(self._ended)
        Thread(target=_work, args=(loop, future, work), daemon=True, name="libvirt").start()
        return future

    def _ended(self, future: Future[Any]) -> None:
        self._places.release()
        future.exception()  # somebody who gave up waiting does not need to hear of it


def _work(loop: AbstractEventLoop, future: Future[T], work: Callable[[], T]) -> None:
    try:
        result = work()
    except BaseException as error:
        _tell(loop, future.set_exception, error)
    else:
        _tell(loop, future.set_result, result)


def _tell(loop: AbstractEventLoop, tell: Callable[[Any], None], what: object) -> None:
    with suppress(RuntimeError):  # the loop ended meanwhile, and with it whoever waited
        loop.call_soon_threadsafe(tell, what)
