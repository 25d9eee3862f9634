"""Calls that hang keep their places, and tasks of instances end with a word."""

from __future__ import annotations

import asyncio
import threading

from federation_member.middleware.contract import MiddlewareError
from federation_member.middleware.libvirt.tasks import Tasks
from federation_member.middleware.libvirt.threads import Threads


async def test_calls_that_hang_keep_their_places_and_no_more() -> None:
    threads, gate = Threads(2), threading.Event()
    hanging = [await threads.begin(gate.wait) for _ in range(2)]
    waiting = asyncio.ensure_future(threads.begin(lambda: "at last"))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    gate.set()
    assert await (await waiting) == "at last"
    assert [await each for each in hanging] == [True, True]


async def test_an_error_is_told_to_whoever_waits() -> None:
    def fail() -> None:
        raise ValueError("no")

    future = await Threads(1).begin(fail)
    await asyncio.wait([future])
    assert str(future.exception()) == "no"


async def test_a_task_that_fails_says_why_and_one_that_is_ended_says_nothing() -> None:
    told: list[tuple[str, str]] = []
    tasks = Tasks(lambda key, reason: told.append((key, reason)))

    async def fail() -> None:
        raise MiddlewareError("the reason")

    async def wait() -> None:
        await tasks.stirred("b", 60)

    tasks.begin("a", fail)
    tasks.begin("b", wait)
    tasks.begin("b", fail)  # one at a time: this one is not begun
    await asyncio.sleep(0.05)
    await tasks.end("b")
    await tasks.end("b")
    assert told == [("a", "the reason")]
    await tasks.stop()


async def test_whoever_waits_is_stirred() -> None:
    tasks, done = Tasks(lambda key, reason: None), asyncio.Event()

    async def wait() -> None:
        await tasks.stirred("a", 60)
        done.set()

    tasks.begin("a", wait)
    await asyncio.sleep(0)
    tasks.stir("a")
    tasks.stir("somebody else")
    async with asyncio.timeout(10):
        await done.wait()
    await tasks.stop()
