"""Bounds on what others can make us do: how often, how much at once, and which query was seen before. All in memory.

Every collection has a fixed capacity, so that a flood costs its sender answers and us nothing that grows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from fedkit.mesh.errors import Busy, RateLimited, Replayed

BUCKETS = 4096
SEEN_QUERIES = 100_000


class Buckets:
    """One token bucket for each name: `rate` a second, `burst` at once. `monotonic` is the time in seconds."""

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """Take a token, or raise `RateLimited` with the seconds until there is one."""
        level = self._level(name)
        if level < 1:
            wait = round((1 - level) / self._rate, 3)
            raise RateLimited(f"More than {self._rate:g} requests a second; try again in {wait:g} s.", wait)
        self._set(name, level - 1)

    def charge(self, name: str, tokens: float) -> None:
        """Charge what was found to cost more than a token; a debt only delays what comes next."""
        self._set(name, self._level(name) - tokens)

    def _level(self, name: str) -> float:
        now = self._monotonic()
        level, then = self._levels.get(name, (self._burst, now))
        return min(self._burst, level + (now - then) * self._rate)

    def _set(self, name: str, level: float) -> None:
        self._levels[name] = (level, self._monotonic())
        self._levels.move_to_end(name)
        if len(self._levels) > BUCKETS:
            self._levels.popitem(last=False)


class SeenQueries:
    """The queries whose expiry has not passed: a second copy of one is a replay."""

    def __init__(self) -> None:
        self._until: OrderedDict[tuple[str, str, int], float] = OrderedDict()

    def check(self, sender: str, jti: str, n: int, until: float, now: float) -> None:
        """Remember this attempt `until` (seconds); raise `Replayed` if it was seen, `Busy` when there is no room."""
        while self._until:
            oldest, expiry = next(iter(self._until.items()))
            if expiry >= now:
                break
            del self._until[oldest]
        if (sender, jti, n) in self._until:
            raise Replayed(f"Query {jti}, attempt {n}, was seen before.")
        if len(self._until) >= SEEN_QUERIES:
            raise Busy("Too many queries within their time of validity.")
        self._until[sender, jti, n] = until
