"""Slows down whoever guesses passwords, in bounded memory.

A bucket for each key (a user name, a client address) holds `burst` attempts and regains one every `seconds`. The
least recently used buckets are forgotten beyond `remembered`: an attacker with that many addresses still meets the
bucket of the user name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

Monotonic = Callable[[], float]


class AttemptLimiter:
    """Token buckets by key; `monotonic` gives seconds."""

    def __init__(self, burst: int, seconds: float, monotonic: Monotonic, remembered: int = 10_000) -> None:
        self._burst = burst
        self._seconds = seconds
        self._monotonic = monotonic
        self._remembered = remembered
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key → attempts left, as of when

    def take(self, key: str) -> float:
        """Use up one attempt and return 0.0, or return the seconds to wait until there is one."""
        now = self._monotonic()
        left, since = self._buckets.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - since) / self._seconds)
        wait = 0.0 if left >= 1 else (1 - left) * self._seconds
        self._buckets[key] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        return wait

    def forgive(self, key: str) -> None:
        """Forget the attempts of a key that has proved itself."""
        self._buckets.pop(key, None)
