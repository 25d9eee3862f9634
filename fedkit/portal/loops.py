"""No frame may go in circles: a second way between two joined networks would multiply every broadcast without end.

Each end lets a beacon out into its own network now and then. Nothing brings it back by the tunnel but another way between the two
networks: then this crossing is shut for a while, at random between one and two pauses, and listens, letting beacons pass and
nothing else, before it opens again. So of several ways in a circle the first to listen opens, and the others, hearing their
beacons come back while they listen, stay shut without a single frame having gone round; their pauses grow.

    OPEN ── own beacon comes back ──► SHUT ── pause ──► LISTENING ── nothing comes back ──► OPEN
                                        ▲                   │ own beacon comes back
                                        └───────────────────┘

Each beacon says a number that only its sender could have thought of, and is forgotten after some others: what somebody heard in one of
the networks and lets out in the other later shuts nothing.

A beacon is a frame of EtherType 0x88B5 (IEEE 802's for experiments) to a group address; whoever counts frames sees one every two
seconds. Pure; time and chance come in.
"""

from __future__ import annotations

import hashlib
from collections import deque
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
REMEMBERED = 3  # of one's own beacons
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
    """Of one crossing at one end, known by `secret`, which nobody else has."""

    def __init__(self, secret: bytes, chance: Callable[[], float]) -> None:
        self._secret = secret
        self._chance = chance
        self.state = State.OPEN
        self._until = 0.0  # when the state ends; for OPEN: when it is calm
        self._pause = FIRST_PAUSE
        self._beacon_due = 0.0
        self.loops = 0
        self._sent = 0
        self._own: deque[bytes] = deque(maxlen=REMEMBERED)
        self._source = b"\x02" + hashlib.sha256(secret).digest()[:5]

    def beacon(self) -> bytes:
        """The next one, as a record."""
        self._sent += 1
        self._own.append(hashlib.blake2s(self._sent.to_bytes(8), key=self._secret, digest_size=ID).digest())
        frame = GROUP + self._source + ETHERTYPE + MAGIC + self._own[-1]
        return NO_OFFLOAD + frame.ljust(FRAME, b"\0")

    def is_own(self, record: memoryview) -> bool:
        """Whether a beacon is one of this end's last."""
        return bytes(record[_ID_AT : _ID_AT + ID]) in self._own

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
