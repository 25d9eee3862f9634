"""Blocking calls are bounded in number, and those who wait for them are not held."""

from __future__ import annotations

import asyncio
import threading

import pytest

from federation_member.middleware.openstack.threads import Threads


async def test_results_and_errors_come_back() -> None:
    threads = Threads(2)
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        await threads.run(lambda: exit())


async def test_a_caller_that_gives_up_is_free_and_its_thread_keeps_its_place() -> None:
    threads, finish = Threads(1), threading.Event()
    first = asyncio.create_task(threads.run(finish.wait))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(threads.run(lambda: "mine"))
    done, _ = await asyncio.wait([second], timeout=0.05)
    assert not done
    finish.set()
    assert await second == "mine"


async def test_never_more_at_once() -> None:
    threads, now, most = Threads(3), 0, 0
    lock, pause = threading.Lock(), threading.Event()

    def call() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        pause.wait(0.005)
        with lock:
            now -= 1

    await asyncio.gather(*(threads.run(call) for _ in range(30)))
    assert most <= 3
