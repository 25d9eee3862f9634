"""A line as a description wants it: frames are late, and some are lost. In user space, because not every kernel has netem.

    take ─► lost, by chance? ─► waits `delay` seconds, in order ─► let out with whatever else is due by then

One timer serves a line: that of its first frame. A frame is never early; it is late by what the event loop's timers are (clock.py), and
by what the process is behind. What waits is bounded, and what finds no room is dropped.

A super-frame stands for many frames on a wire. Of a TCP one each segment has a chance of its own, and what is left goes on in
smaller ones; UDP ones are not asked for where frames are to be lost (`Crossing.takes_uso`).
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fedkit.portal.counts import Counts
from fedkit.portal.frames import ECN, GSO_TCP4, GSO_TCP6, LARGEST, VNET
from fedkit.portal.loops import is_beacon
from fedkit.portal.planes.contract import Plane
from fedkit.portal.planes.salvage import tcp_parts

ALL = 64 << 20  # octets of memory that the lines of a portal may hold together, each its share
MOST, LEAST = 16 << 20, 1 << 20  # of one: 1 Gbit/s for 120 ms; or 100 Mbit/s for 75
AT_ONCE = 64  # frames that are let out before others have a turn
APIECE = 128  # octets that a waiting frame costs besides its own

LetOut = Callable[[Sequence[bytes]], None]


@dataclass(frozen=True)
class LineShape:
    """What is asked of one direction: `delay` in seconds, `loss` from 0 to 1; and what it may take."""

    delay: float = 0.0
    loss: float = 0.0
    room: int = MOST  # octets that may wait

    def __bool__(self) -> bool:
        return self.delay > 0 or self.loss > 0


def share(lines: int) -> int:
    """Octets that each of so many lines may hold."""
    return min(MOST, max(LEAST, ALL // max(lines, 1)))


class Line:
    """One direction; `let_out` takes what is due, `chance` is from 0 to below 1. Its `room` may become another at any time."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        shape: LineShape,
        counts: Counts,
        let_out: LetOut,
        chance: Callable[[], float],
    ) -> None:
        self.room = shape.room
        self._loop = loop
        self._shape = shape
        self._counts = counts
        self._let_out = let_out
        self._chance = chance
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def take(self, record: memoryview) -> None:
        """A record, which may be another when this returns."""
        due = self._loop.time() + self._shape.delay
        for frame in self._left_of(bytes(record)):
            size = len(frame) + APIECE
            if self._size + size > self.room:
                self._counts.dropped += 1
                continue
            self._size += size
            self._waiting.append((due, frame))
        self._wait()

    def clear(self) -> None:
        """Drop what waits."""
        self._counts.dropped += len(self._waiting)
        self._waiting.clear()
        self._size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = self._loop.call_at(self._waiting[0][0], self._release)

    def _release(self) -> None:
        self._timer = None
        now = self._loop.time()
        due: list[bytes] = []
        while self._waiting and self._waiting[0][0] <= now and len(due) < AT_ONCE:
            _, frame = self._waiting.popleft()
            self._size -= len(frame) + APIECE
            due.append(frame)
        self._let_out(due)
        self._wait()

    def _left_of(self, record: bytes) -> Iterable[bytes]:
        if not self._shape.loss:
            return (record,)
        if VNET.unpack_from(record)[1] & ~ECN not in (GSO_TCP4, GSO_TCP6):
            return () if self._is_lost() else (record,)
        before = self._counts.lost
        try:
            parts = list(tcp_parts(record, lambda first, _: first == 0 or not self._is_lost()))
        except struct.error:  # headers that lead out of it
            parts = []
        if not parts and self._counts.lost == before:
            self._counts.refused += 1
        return parts

    def _is_lost(self) -> bool:
        lost = self._chance() < self._shape.loss
        self._counts.lost += lost
        return lost


class Outgoing:
    """A line before a plane, filled as planes are. Beacons overtake all else, so a circle is seen however slow its lines are."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tag: int,
        shape: LineShape,
        counts: Counts,
        chance: Callable[[], float],
    ) -> None:
        self._tag = tag
        self._counts = counts
        self._buffer = memoryview(bytearray(LARGEST))
        self._plane: Plane | None = None
        self._line = Line(loop, shape, counts, self._let_out, chance)

    def use(self, plane: Plane | None) -> Outgoing | None:
        """Be before this plane; return what is to be filled, if anything."""
        if plane is None or not plane.superframes:  # what waits is for nobody, or may be too large
            self._line.clear()
        self._plane = plane
        return None if plane is None else self

    def room(self) -> memoryview | None:
        """See the contract of planes."""
        return self._buffer

    def commit(self, tag: int, size: int) -> None:
        """See the contract of planes."""
        record = self._buffer[:size]
        if is_beacon(record):
            self._let_out([bytes(record)])
        else:
            self._line.take(record)

    def flush(self) -> None:
        """See the contract of planes; a line lets out by itself."""

    def _let_out(self, records: Sequence[bytes]) -> None:
        plane = self._plane
        if plane is None:
            return
        for record in records:
            room = plane.room()
            if room is None:  # what is before it may leave room behind
                plane.flush()
                room = plane.room()
            if room is None or len(room) < len(record):
                self._counts.dropped += 1
                continue
            room[: len(record)] = record
            plane.commit(self._tag, len(record))
        plane.flush()

    def clear(self) -> None:
        """Drop what waits."""
        self._line.clear()
