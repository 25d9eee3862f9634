"""What is known of a path: numbered probes and their answers, from which delay, loss and life follow. Pure; time comes in."""

from __future__ import annotations

from collections import deque

IN_A_ROW = 3  # answers that bring a path to life, and losses that end it
MOST_PENDING = 64
REMEMBERED = 64  # outcomes


class Health:
    """Of one path; `patience` is how many seconds an answer may take before the probe counts as lost."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._next = 0
        self._pending: dict[int, float] = {}
        self._outcomes: deque[float | None] = deque(maxlen=REMEMBERED)
        self._in_a_row = 0
        self._misses = 0
        self.alive = False

    def probe(self, now: float) -> int:
        """Return the number of the probe that is sent now."""
        self.expire(now)
        number, self._next = self._next, self._next + 1
        self._pending[number] = now
        if len(self._pending) > MOST_PENDING:
            del self._pending[min(self._pending)]
        return number

    def answered(self, number: int, now: float) -> None:
        """A probe came back; one that nobody waits for any more tells nothing."""
        sent = self._pending.pop(number, None)
        if sent is not None:
            self._outcomes.append(now - sent)
            self._in_a_row += 1
            self._misses = 0
            self.alive = self.alive or self._in_a_row >= IN_A_ROW

    def expire(self, now: float) -> None:
        """Count what has not come back in time."""
        for number in [number for number, sent in self._pending.items() if now - sent > self._patience]:
            del self._pending[number]
            self._outcomes.append(None)
            self._in_a_row = 0
            self._misses += 1
            self.alive = self.alive and self._misses < IN_A_ROW

    @property
    def delay(self) -> float | None:
        """Seconds there and back when nothing else is on the way: the least of the remembered answers."""
        return min((outcome for outcome in self._outcomes if outcome is not None), default=None)

    @property
    def delay_now(self) -> float | None:
        """Seconds that the last answer took, with what was on the way."""
        return next((outcome for outcome in reversed(self._outcomes) if outcome is not None), None)

    @property
    def loss(self) -> float:
        """Part of the probes that did not come back."""
        return sum(outcome is None for outcome in self._outcomes) / len(self._outcomes) if self._outcomes else 0.0
