"""When to look whether a machine is made: often when it is about to be, seldom before, ever more seldom after.

Each look costs the cloud time that it would make machines in, so looks in vain make machines late. How long this cloud takes is
learned from those that it made last. Whatever was learned, there is a look at least every second at first, and then after each
eighth of the time so far: what fails at once is noticed soon, and what takes minutes is not asked for every second.
"""

from __future__ import annotations

from collections import deque
from statistics import median

SOONEST = 0.3  # seconds between two looks, while nothing is known of the cloud
EARLIEST = 0.1  # seconds between two looks, when it is about to be made
SELDOM = 1.0  # seconds between two looks, long before that
SLOWING = 8  # a pause is this part of the time so far; a quarter of that when it is about to be made
OPENS, CLOSES = 0.8, 1.5  # when it is about to be made, in parts of the usual time
REMEMBERED = 8  # machines


class Pace:
    """Learns from one machine after the other. All times are seconds of the same clock."""

    def __init__(self) -> None:
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    def learn(self, seconds: float) -> None:
        """A machine was seen to be made, so long after it was begun."""
        self._took.append(seconds)

    def next_look(self, begun: float, last: float) -> float:
        """When to look for something begun at `begun`, having looked at `last`."""
        last = max(begun, last)
        age = last - begun
        if not self._took:
            return last + max(age / SLOWING, SOONEST)
        usual = median(self._took)
        opens, closes = begun + OPENS * usual, begun + CLOSES * usual
        if opens <= last <= closes:
            return last + max(age / SLOWING / 4, EARLIEST)
        due = last + max(age / SLOWING, SELDOM)
        return min(due, opens) if last < opens else due
