"""How far another clock is from ours, by round trips, as NTP does it (RFC 5905 section 8, with the middle of a request as one moment).

The quickest of several round trips tells most. The true offset is never farther from the estimate than `bound`, half of that round trip,
however unequal the two ways are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

SAMPLES = 8

Clock = Callable[[], float]


class Sample(NamedTuple):
    """When we asked, what the other clock said, and when we heard it."""

    asked: float
    said: float
    heard: float


class Offset(NamedTuple):
    """The other clock minus ours, in seconds, and by how much that may be wrong."""

    seconds: float
    bound: float


def estimate(samples: Iterable[Sample]) -> Offset:
    """From one sample or more."""
    best = min(samples, key=lambda sample: sample.heard - sample.asked)
    return Offset(best.said - (best.asked + best.heard) / 2, (best.heard - best.asked) / 2)


def measure(ask: Callable[[], float], clock: Clock) -> Offset:
    """Ask several times."""
    return estimate([Sample(clock(), ask(), clock()) for _ in range(SAMPLES)])
