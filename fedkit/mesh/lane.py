"""What waits for one peer, and what may start next. No I/O.

    ordered: commands without a deadline, by id          urgent: commands with a deadline, which never wait for an ordered one
    flying:  attempts under way                          behind: more rows wait in the table

Ordered commands are *executed* in the order of their ids. They start in that order and each names its predecessor under way
(`after`); a receiver that has not executed that one refuses with `mesh.out_of_order`, and the lane then waits until all of
them have landed before it starts again from the first. The exception: a command over which the peer's handler
crashes (`internal`) loses its place, or it would block the peer for ever.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from fedkit.mesh.api import Peer
from fedkit.mesh.envelope import INLINE_LIMIT
from fedkit.mesh.outbox import Entry
from fedkit.mesh.packs import OCTETS, PACK

WINDOW = 32  # stanzas under way at once, at most
BRISK = 4  # from so many on, commands are gathered until they fill a pack
LOADED = 128  # rows in memory for each peer
LOADED_OCTETS = 2 * 1024 * 1024  # of their bodies


@dataclass
class Lane:
    """The commands for one peer that are in memory."""

    peer: Peer
    ordered: list[Entry] = field(default_factory=list)
    urgent: deque[Entry] = field(default_factory=deque)
    flying: dict[str, Entry] = field(default_factory=dict)
    stanzas: int = 0
    waiting: dict[str, Entry] = field(default_factory=dict)
    octets: int = 0
    last_id: int = 0
    behind: bool = False
    loading: bool = False
    stalled: bool = False
    hold_until: float = 0.0  # seconds, monotonic
    window: float = WINDOW

    @property
    def full(self) -> bool:
        """Whether further rows must stay in the table."""
        return len(self.waiting) + len(self.flying) >= LOADED or self.octets >= LOADED_OCTETS

    def offer(self, entry: Entry) -> None:
        """Take a command just written, or leave it in the table for later."""
        if entry.jti in self.waiting or entry.jti in self.flying:
            return
        newest = entry.id > self.last_id
        if newest and (self.behind or self.loading or self.full):
            self.behind = True
            return
        self.add(entry)

    def add(self, entry: Entry) -> None:
        """Put a command among those that wait."""
        if entry.jti in self.waiting:
            return
        self.last_id = max(self.last_id, entry.id)
        self.waiting[entry.jti] = entry
        self.octets += len(entry.body)
        if entry.ordered:
            bisect.insort(self.ordered, entry, key=lambda other: other.id)
        else:
            self.urgent.append(entry)

    def remove(self, jti: str) -> Entry | None:
        """Take a waiting command out."""
        entry = self.waiting.pop(jti, None)
        if entry is not None:
            self.octets -= len(entry.body)
            if entry.ordered:
                self.ordered.remove(entry)
            else:
                self.urgent.remove(entry)
        return entry

    def hold(self, monotonic: float, seconds: float) -> None:
        """The peer asked us to wait: halve the window, once for all attempts that were under way."""
        if self.hold_until <= monotonic:
            self.window = max(1.0, self.window / 2)
        self.hold_until = max(self.hold_until, monotonic + seconds)

    def widen(self) -> None:
        """An attempt was answered: by and by, open the window again."""
        self.window = min(float(WINDOW), self.window + 1 / self.window)

    def take(self, monotonic: float, patient: Callable[[Entry], bool]) -> list[Entry]:
        """Move the commands that may start now, in one stanza, to those under way; an empty list if none may.

        `patient` tells which have time for a whole attempt, so that they can share one.
        """
        if self.stanzas >= BRISK and len(self.waiting) < PACK and self.octets < OCTETS:
            return []
        batch: list[Entry] = []
        octets = 0
        while len(batch) < PACK:
            entry = self._next(monotonic)
            if entry is None:
                break
            octets += len(entry.body.encode())
            alone = entry.displaced or entry.alone or octets > OCTETS or not patient(entry)
            if batch and (alone or entry.peer != batch[0].peer):
                break
            self.remove(entry.jti)
            self.flying[entry.jti] = entry
            batch.append(entry)
            if alone:
                break
        if batch and batch[0].ordered and octets > INLINE_LIMIT:
            self.stalled = True  # its chunks take a while; those behind it would only be refused
        self.stanzas += bool(batch)
        return batch

    def landed(self, batch: list[Entry]) -> None:
        """Note that a stanza is not under way any more."""
        for entry in batch:
            del self.flying[entry.jti]
        self.stanzas -= 1

    def predecessors(self, batch: list[Entry]) -> list[str | None]:
        """For each command the id of the ordered one under way that must be executed before it."""
        found: list[str | None] = []
        for entry in batch:
            before: Entry | None = None
            if entry.ordered and not entry.displaced:
                earlier = (e for e in self.flying.values() if e.ordered and not e.displaced and e.id < entry.id)
                before = max(earlier, key=lambda other: other.id, default=None)
            found.append(None if before is None else before.jti)
        return found

    def wake_at(self) -> float | None:
        """When (monotonic seconds) a waiting command becomes ready by itself."""
        times = [entry.not_before for entry in self.waiting.values() if entry.not_before > 0]
        return min(times, default=None)

    def _next(self, monotonic: float) -> Entry | None:
        for entry in self.urgent:
            if entry.not_before <= monotonic:
                return entry
        if self.stalled:
            if any(entry.ordered for entry in self.flying.values()):
                return None
            self.stalled = False
        for entry in self.ordered:
            if entry.not_before <= monotonic:
                return entry
            if not entry.displaced:
                return None
        return None
