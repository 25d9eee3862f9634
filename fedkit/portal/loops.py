"""No frame may go in circles: a second way between two joined networks would multiply every broadcast without end.

Each end lets a beacon out into its own network now and then. Nothing brings it back by the tunnel but another way between the two
networks: then this crossing is shut for a while, at random between one and two pauses, and listens, letting beacons pass and
nothing else, before it opens again. So of several ways in a circle the first to listen opens, and the others, hearing their
beacons come back while they listen, stay shut without a single frame having gone round; their pauses grow.

    OPEN ── own beacon comes back ──► SHUT ── pause ──► LISTENING ── nothing comes back ──► OPEN
                                        ▲                   │ own beacon comes back
                                        └───────────────────┘

A beacon is a frame of EtherType 0x88B5 (IEEE 802's for experiments) to a group address; whoever counts frames sees one every two
seconds. Pure; time and chance come in.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from fedkit.portal.frames import NO_OFFLOAD, VNET

EVERY = 2.0  # seconds between beacons
FIRST_PAUSE, LONGEST_PAUSE = 4.0, 240.0  # seconds
LISTENING = 2.5 * EVERY
CALM = 60.0  # seconds open after which earlier loops are forgotten
GROUP = bytes.fromhex("036665646d68")
ETHERTYPE = b"\x88\xb5"
MAGIC = b"fedmesh portal loop probe\0"
ID = 16  # octets
FRAME = 60
_TYPE_AT = VNET.size + 12
_MAGIC_AT = _TYPE_AT + 2
_ID_AT = _MAGIC_AT + len(MAGIC)


class State(StrEnum):
    """Of a crossing."""

    OPEN = "open"
    SHUT = "shut"
    LISTENING = "listening"


def is_beacon(record: memoryview) -> bool:
    """Whether a record is a portal's beacon; quick for what is none."""
    return record[_TYPE_AT:_MAGIC_AT] == ETHERTYPE and record[_MAGIC_AT:_ID_AT] == MAGIC


class LoopGuard:
    """Of one crossing at one end, known by `identity`, which nobody else has."""

    def __init__(self, identity: bytes, chance: Callable[[], float]) -> None:
        self._identity = identity
        self._chance = chance
        self.state = State.OPEN
        self._until = 0.0  # when the state ends; for OPEN: when it is calm
        self._pause = FIRST_PAUSE
        self._beacon_due = 0.0
        self.loops = 0
        source = b"\x02" + identity[:5]
        frame = GROUP + source + ETHERTYPE + MAGIC + identity
        self.beacon = NO_OFFLOAD + frame.ljust(FRAME, b"\0")

    def is_own(self, record: memoryview) -> bool:
        """Whether a beacon is this end's."""
        return record[_ID_AT : _ID_AT + ID] == self._identity

    def came_back(self, now: float) -> None:
        """The own beacon came by the tunnel: there is a circle."""
        self.loops += self.state == State.OPEN
        self.state = State.SHUT
        self._until = now + self._pause * (1 + self._chance())
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def tick(self, now: float) -> bool:
        """Go on; return whether a beacon is to be let out now."""
        if now >= self._until:
            if self.state == State.SHUT:
                self.state, self._until = State.LISTENING, now + LISTENING
                self._beacon_due = now
            elif self.state == State.LISTENING:
                self.state, self._until = State.OPEN, now + CALM
            else:
                self._pause = FIRST_PAUSE
        if self.state == State.SHUT or now < self._beacon_due:
            return False
        self._beacon_due = now + EVERY
        return True

    def join(self) -> None:
        """There is a tunnel (again): look at once."""
        self._beacon_due = 0.0
