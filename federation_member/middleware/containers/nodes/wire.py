"""The program that carries the frames of late links: see `wires.py`, which starts it and hands it taps, two of each interface.

What waits in it is in no node's share of memory, so all interfaces together have a bound, of which each direction has its part.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from random import random

from fedkit.portal.clock import fine_loop
from fedkit.portal.counts import Counts
from fedkit.portal.frames import LARGEST
from fedkit.portal.line import Line, LineShape

ALL = 128 << 20  # octets that may wait
MOST, LEAST = 4 << 20, 128 << 10  # of one direction: 100 Mbit/s for 300 ms; two super-frames
FRAMES_PER_TURN = 64  # of one direction, before others have a turn
MESSAGE = 4096  # octets


class Wire:
    """One interface, between its end in the node and that in the bridge, until one of them is gone. Delays in seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ends: Sequence[int],
        delays: dict[str, float],
        gone: Callable[[Wire], None],
    ) -> None:
        self._loop = loop
        self._gone = gone
        self._ends = tuple(ends)
        self._buffer = memoryview(bytearray(LARGEST))
        inside, outside = ends
        self._lines = (self._line(delays["to"], outside), self._line(delays["back"], inside))
        for end, line in zip(self._ends, self._lines, strict=True):
            loop.add_reader(end, self._read, end, line)

    def _line(self, delay: float, end: int) -> Line:
        return Line(self._loop, LineShape(delay), Counts(), partial(self._write, end), random)

    def have(self, room: int) -> None:
        """So many octets may wait in each direction from now on."""
        for line in self._lines:
            line.room = room

    def _read(self, end: int, line: Line) -> None:
        for _ in range(FRAMES_PER_TURN):
            try:
                size = os.readv(end, (self._buffer,))
            except BlockingIOError:
                return
            except OSError:  # the interface was deleted
                self._close()
                return
            line.take(self._buffer[:size])

    def _write(self, end: int, frames: Sequence[bytes]) -> None:
        for frame in frames:
            with suppress(OSError):  # the interface is down, or going
                os.write(end, frame)

    def _close(self) -> None:
        for end, line in zip(self._ends, self._lines, strict=True):
            self._loop.remove_reader(end)
            line.clear()
            os.close(end)
        self._gone(self)


class Wires:
    """All of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._there: set[Wire] = set()

    def add(self, ends: Sequence[int], delays: dict[str, float]) -> None:
        """One more interface."""
        self._there.add(Wire(self._loop, ends, delays, self._lose))
        self._share()

    def _lose(self, wire: Wire) -> None:
        self._there.discard(wire)
        self._share()

    def _share(self) -> None:
        room = ALL // max(2 * len(self._there), 1)
        for wire in self._there:
            wire.have(min(MOST, max(LEAST, room)))


async def carry(hand: socket.socket) -> None:
    """Be every interface that comes, until nobody hands over any more."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    wires = Wires(loop)

    def take() -> None:
        said, ends, _, _ = socket.recv_fds(hand, MESSAGE, 2)
        if said:
            wires.add(ends, json.loads(said))
        else:
            loop.remove_reader(hand)
            over.set_result(None)

    loop.add_reader(hand, take)
    await over


def run() -> None:
    """As a program."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for each interface
    with socket.socket(fileno=0) as hand, asyncio.Runner(loop_factory=fine_loop) as runner:
        runner.run(carry(hand))
