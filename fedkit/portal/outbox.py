"""What waits to be sent: short, and it drops at its tail.

Frames are read from a tap straight into the place from which they are encrypted, several into one packet:

    head | record record record … | tail        head and tail are room for what the plane puts around

A tunnel that keeps much makes every ping wait behind every bulk transfer, so what may wait is what the line takes in
`HOLD` seconds: little on a slow line, some super-frames on a fast one.
"""

from __future__ import annotations

from collections import deque

from fedkit.portal.frames import LARGEST, RECORD

HEAD, TAIL = 16, 32
ROOM = RECORD.size + LARGEST
PACKET = 2 * ROOM  # octets of records in one packet: two super-frames
HOLD = 0.006  # seconds
SHORT, IDLE = 0.001, 0.25  # seconds between two drains that tell nothing: too few octets, or nobody sent
LEAST, MOST = 2 * PACKET, 32 * PACKET  # octets that may wait


class Packet:
    """A buffer with its fill: octets of records behind its head."""

    __slots__ = ("fill", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(HEAD + PACKET + TAIL))
        self.fill = 0

    @property
    def records(self) -> memoryview:
        """What is in it."""
        return self.view[HEAD : HEAD + self.fill]


class Outbox:
    """Packets in the order in which they were begun."""

    def __init__(self) -> None:
        self._current = Packet()
        self._waiting: deque[Packet] = deque()
        self._spare: list[Packet] = []
        self._size = 0
        self._limit = LEAST
        self._rate = 0.0
        self._sent = 0
        self._since = 0.0

    @property
    def size(self) -> int:
        """Octets that wait."""
        return self._size + self._current.fill

    def room(self) -> memoryview | None:
        """Where the next record behind its tag goes, LARGEST octets; None: it is to be dropped."""
        current = self._current
        if current.fill + ROOM > PACKET:
            if self._size + current.fill >= self._limit:
                return None
            self._waiting.append(current)
            self._size += current.fill
            current = self._current = self._spare.pop() if self._spare else Packet()
        start = HEAD + current.fill + RECORD.size
        return current.view[start : start + LARGEST]

    def commit(self, tag: int, size: int) -> None:
        """A record of `size` octets stands where `room` said."""
        RECORD.pack_into(self._current.view, HEAD + self._current.fill, size, tag)
        self._current.fill += RECORD.size + size

    def next(self) -> Packet | None:
        """The packet whose turn it is; None if nothing waits. It stays until `done`."""
        if self._waiting:
            return self._waiting[0]
        return self._current if self._current.fill else None

    def done(self, packet: Packet) -> None:
        """A packet has been sent: its buffer is free again."""
        self._sent += packet.fill
        if packet is not self._current:
            self._waiting.popleft()
            self._size -= packet.fill
            if len(self._spare) < MOST // PACKET:
                self._spare.append(packet)
        packet.fill = 0

    def clear(self) -> None:
        """Nothing of this is sent any more."""
        self._waiting.clear()
        self._size = self._current.fill = 0

    def drained(self, now: float) -> None:
        """The line was full and takes data again: learn how fast it is."""
        passed = now - self._since
        if passed < SHORT:
            return
        if passed < IDLE:
            self._rate += (self._sent / passed - self._rate) / 8
            self._limit = int(min(max(self._rate * HOLD, LEAST), MOST))
        self._sent, self._since = 0, now
