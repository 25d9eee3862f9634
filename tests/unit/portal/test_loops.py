"""Several ways between networks: what the guards leave open is never a circle for long, and always a way."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.portal.frames import is_sound
from fedkit.portal.loops import ID, REMEMBERED, LoopGuard, State, is_beacon

STEP = 0.25
LONG = 1500.0  # seconds of virtual time


class Ways:
    """Some portal pairs in parallel between two networks; both ends of each have a guard."""

    def __init__(self, count: int, seed: int) -> None:
        chance = random.Random(seed)
        self.pairs = [[LoopGuard(chance.randbytes(ID), chance.random) for _ in range(2)] for _ in range(count)]
        self.now = 0.0

    def passes(self, pair: int) -> bool:
        """Whether beacons cross there."""
        return all(guard.state is not State.SHUT for guard in self.pairs[pair])

    def open(self) -> int:
        """Ways by which frames cross."""
        return sum(all(guard.state is State.OPEN for guard in pair) for pair in self.pairs)

    def step(self) -> None:
        """Let out beacons; one that leaves at one end of a pair comes back if another way takes it across."""
        self.now += STEP
        for number, pair in enumerate(self.pairs):
            for guard in pair:
                around = any(self.passes(other) for other in range(len(self.pairs)) if other != number)
                if guard.tick(self.now) and around and self.passes(number):
                    guard.came_back(self.now)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers())
def test_of_several_ways_one_stays(count: int, seed: int) -> None:
    ways = Ways(count, seed)
    circles = without = 0.0
    while ways.now < LONG:
        ways.step()
        circles += STEP * (ways.open() > 1)
        without += STEP * (ways.open() == 0)
    assert circles < 0.02 * LONG
    assert without < 0.1 * LONG
    assert ways.open() == 1


def test_a_single_way_stays_open() -> None:
    ways = Ways(1, 1)
    for _ in range(1000):
        ways.step()
        assert ways.open() == 1


def test_a_beacon_is_a_frame_that_passes_and_is_known() -> None:
    guard, other = (LoopGuard(bytes([number]) * ID, random.random) for number in (1, 2))
    record = memoryview(guard.beacon())
    assert is_sound(record)
    assert is_beacon(record)
    assert guard.is_own(record)
    assert not other.is_own(record)
    assert not is_beacon(memoryview(bytes(10)))


def test_what_was_heard_long_ago_is_nobodys_beacon() -> None:
    guard = LoopGuard(bytes(ID), random.random)
    heard = [guard.beacon() for _ in range(2 * REMEMBERED)]
    assert len(set(heard)) == len(heard)
    assert [guard.is_own(memoryview(beacon)) for beacon in heard] == [False] * REMEMBERED + [True] * REMEMBERED
