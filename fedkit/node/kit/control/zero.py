"""When an experiment's time begins: once all nodes that have events answer, or after long enough. It survives whoever keeps it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedkit.node.kit.control.clocks import Clock

PATIENCE = 300.0  # seconds

Scheduled = tuple[float, str, str, str]


class Zero:
    """The beginning, and which events of the description are released already."""

    def __init__(self, file: Path, events: Sequence[Scheduled], released: Iterable[Scheduled], clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._waiting_since = clock()
        self.at: float | None = float(file.read_text()) if file.exists() else None
        known = Counter(released)
        self._events = []
        for event in events:
            if self.at is not None and known[self._at_last(event)]:
                known[self._at_last(event)] -= 1
            else:
                self._events.append(event)

    def perhaps(self, all_answer: bool) -> None:
        """Begin now, if it is time."""
        now = self._clock()
        if all_answer or now - self._waiting_since > PATIENCE:
            scratch = self._file.with_suffix(".new")
            scratch.write_text(repr(now))
            os.replace(scratch, self._file)
            self.at = now

    def due(self, horizon: float) -> list[Scheduled]:
        """Those that are due within `horizon` seconds and are not `told` yet, with their times on the clock."""
        if self.at is None:
            return []
        until = self._clock() - self.at + horizon
        return [self._at_last(event) for event in self._events if event[0] <= until]

    def told(self, number: int) -> None:
        """So many of those that were due are released."""
        del self._events[:number]

    def _at_last(self, event: Scheduled) -> Scheduled:
        assert self.at is not None
        return (self.at + event[0], *event[1:])
