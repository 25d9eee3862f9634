"""Fine timers: none rings early, each rings, and descriptors are heard meanwhile. How fine they are no test can say."""

from __future__ import annotations

import asyncio
import os
import socket
import time

from fedkit.portal.clock import FineSelector, fine_loop


def test_timers_ring_in_order_and_none_is_early() -> None:
    rung: list[tuple[float, float]] = []

    async def scenario() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def ring(due: float) -> None:
            rung.append((due, loop.time()))

        for wait in (0.02, 0.0, 0.0004, 0.003, 0.0101):
            due = loop.time() + wait
            loop.call_at(due, ring, due)
        loop.call_later(0.03, done.set)
        await done.wait()

    with asyncio.Runner(loop_factory=fine_loop) as runner:
        runner.run(scenario())
    assert len(rung) == 5
    assert rung == sorted(rung)
    assert all(due <= now + 1e-9 for due, now in rung)  # the loop's own idea of its clock


def test_descriptors_are_heard_while_nothing_is_due() -> None:
    async def scenario() -> bytes:
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            there.setblocking(False)
            loop = asyncio.get_running_loop()
            loop.call_later(0.001, there.send, b"heard")
            return await loop.sock_recv(here, 16)

    with asyncio.Runner(loop_factory=fine_loop) as runner:
        assert runner.run(scenario()) == b"heard"


def test_a_timer_that_rang_does_not_ring_on() -> None:
    selector, (read, write) = FineSelector(), os.pipe()
    try:
        selector.register(read, 1)
        before = time.monotonic()
        assert selector.select(0.002) == []
        assert time.monotonic() - before >= 0.002
        assert selector.select(0) == []
        os.write(write, b"x")
        assert [key.fd for key, _ in selector.select(None)] == [read]
    finally:
        selector.close()
        os.close(read)
        os.close(write)


def test_it_leaves_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    with asyncio.Runner(loop_factory=fine_loop) as runner:
        runner.run(asyncio.sleep(0.001))
    assert len(os.listdir("/proc/self/fd")) == len(before)
