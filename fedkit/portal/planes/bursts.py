"""Bursts: what one flush of an outbox becomes, cut into datagrams of one size, and put together again.

A burst has no number of its own: its datagrams are counted one by one, so counter minus index is the same for all of them. Bursts
are passed on as they become whole. One that misses a piece waits while a few later ones begin, for datagrams that overtake
one another, and at most until the next tick; then what can be had of it is passed on.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedkit.portal.frames import split
from fedkit.portal.planes import salvage
from fedkit.portal.planes.sealing import Opened

MOST_OPEN = 4  # bursts that miss something, at once: each holds 130 KB at most
MOST_PIECES = 255
MOST_SIZE = 1500

Records = Iterator[tuple[int, memoryview]]


class _Burst:
    __slots__ = ("age", "missing", "pieces", "size")

    def __init__(self, count: int) -> None:
        self.pieces: list[bytes | None] = [None] * count
        self.missing = count
        self.size = 0
        self.age = 0

    def records(self) -> Records:
        if not self.missing:
            return split(memoryview(b"".join(piece or b"" for piece in self.pieces)))
        return salvage.records(self.pieces, self.size) if self.size else iter(())


class Bursts:
    """Those of one direction of one epoch."""

    def __init__(self) -> None:
        self._open: dict[int, _Burst] = {}
        self._done_before = -1  # bursts that begin at or below this counter are over
        self.lost = 0  # datagrams

    def add(self, piece: Opened) -> list[Records]:
        """Take a datagram; return what can be passed on because of it. Raises `Violation`."""
        begin = piece.counter - piece.index
        if piece.count <= piece.index or len(piece.plain) > MOST_SIZE or begin < 0:
            return []
        if piece.count == 1:
            return [split(memoryview(piece.plain))]
        burst = self._open.get(begin)
        over: list[Records] = []
        if burst is None:
            if begin <= self._done_before:
                return []
            burst = self._open[begin] = _Burst(piece.count)
            if len(self._open) > MOST_OPEN:
                over.append(self._give_up(min(self._open)))
        if len(burst.pieces) != piece.count or burst.pieces[piece.index] is not None:
            return over
        burst.pieces[piece.index] = piece.plain
        burst.missing -= 1
        if piece.index < piece.count - 1 or not burst.size:
            # Until another tells better, the last piece's size stands for all: it is never larger than they are.
            burst.size = max(burst.size, len(piece.plain))
        if not burst.missing:
            del self._open[begin]
            over.append(burst.records())
        return over

    def tick(self) -> list[Records]:
        """Some milliseconds have passed: give up what has missed a piece for longer than that."""
        old = [begin for begin, burst in self._open.items() if burst.age]
        for burst in self._open.values():
            burst.age += 1
        return [self._give_up(begin) for begin in sorted(old)]

    @property
    def waiting(self) -> bool:
        """Whether some burst misses a piece."""
        return bool(self._open)

    def _give_up(self, begin: int) -> Records:
        burst = self._open.pop(begin)
        self._done_before = max(self._done_before, begin)
        self.lost += burst.missing
        return burst.records()
