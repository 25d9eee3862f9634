"""Events that this station knows of, on disk before it says so; and the runner that lets them happen when they are due.

Numbers go up in the order in which the scheduler released them, so what was sent twice is known by its number, and nothing is passed
over. An event that has begun when its agent is killed does not begin again; one that was due meanwhile happens late, and says how late.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Condition, Thread
from typing import Any

from fedkit.node.kit.control.clocks import Clock
from fedkit.node.kit.errors import BadRequest, KitError

EVENTS_LIMIT = 20_000
WORD_LIMIT = 4096  # characters
TIME_LIMIT = 2.0**53  # seconds; beyond, and for what is no number, nobody could wait
LOOK_EVERY = 1.0  # seconds; a clock may be set


@dataclass(frozen=True)
class Event:
    """At `at` (seconds of this station's clock, wrong by `error` at most) `node` does `action` to `target`."""

    seq: int
    at: float
    node: str
    target: str
    action: str
    error: float = 0.0


def event_of(said: Any) -> Event:
    """An event as another station sends it; raises `BadRequest`."""
    event = Event(**said)
    words = (event.node, event.target, event.action)
    numbers = (event.at, event.error)
    if not all(isinstance(word, str) and len(word) <= WORD_LIMIT for word in words):
        raise BadRequest("node, target and action of an event are short texts")
    if not isinstance(event.seq, int) or not all(isinstance(number, (int, float)) for number in numbers):
        raise BadRequest("seq, at and error of an event are numbers")
    if not all(abs(number) < TIME_LIMIT for number in numbers):
        raise BadRequest("an event is at some time")
    return event


class Log:
    """Events in the order of their numbers, and reports of those that began; `changed` wakes whoever waits for more."""

    def __init__(self, file: Path) -> None:
        self.events: list[Event] = []
        self.reports: dict[int, dict[str, Any]] = {}
        self.changed = Condition()
        self._file = file
        self._load()

    @property
    def last(self) -> int:
        """The highest number."""
        return self.events[-1].seq if self.events else 0

    def add(self, events: Iterable[Event]) -> int:
        """Take those that are new; the highest number of all."""
        with self.changed:
            new = [event for event in sorted(events, key=lambda event: event.seq) if event.seq > self.last]
            self._take(new)
            return self.last

    def release(self, events: Iterable[tuple[float, str, str, str]]) -> int:
        """Give the next numbers to events of our own."""
        with self.changed:
            first = self.last + 1
            self._take([Event(first + place, *event) for place, event in enumerate(events)])
            return self.last

    def report(self, seq: int, **said: Any) -> None:
        """Add to what is known of one."""
        with self.changed:
            self.reports.setdefault(seq, {}).update(said)
            self._append({"seq": seq, "report": said})

    def _take(self, new: list[Event]) -> None:
        if len(self.events) + len(new) > EVENTS_LIMIT:
            raise BadRequest(f"an experiment has at most {EVENTS_LIMIT} events")
        if new:
            self._append(*({"event": asdict(event)} for event in new))
            self.events += new
            self.changed.notify_all()

    def _append(self, *lines: Any) -> None:
        with os.fdopen(os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as file:
            file.write(b"\n" + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())

    def _load(self) -> None:
        for line in self._file.read_bytes().split(b"\n") if self._file.exists() else []:
            try:
                said = json.loads(line)
            except ValueError:  # an empty line, or one that was cut off: nobody was told that it was taken
                continue
            if "event" in said:
                self.events.append(Event(**said["event"]))
            else:
                self.reports.setdefault(said["seq"], {}).update(said["report"])


Do = Callable[[str, str, Callable[[Any], None]], str]  # target, action, whom to tell how it ended; what it says at once


class Runner:
    """Lets the events of one node happen, in the order of their times and then of their numbers."""

    def __init__(self, log: Log, clock: Clock, do: Do) -> None:
        self._log = log
        self._clock = clock
        self._do = do
        self._ends = False
        self._thread = Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """From now on."""
        self._thread.start()

    def close(self) -> None:
        """No more."""
        with self._log.changed:
            self._ends = True
            self._log.changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while (event := self._next()) is not None:
            fired = self._clock()
            late = {"due": event.at, "fired": fired, "late": fired - event.at, "clock_error": event.error}
            self._log.report(event.seq, **late, status="began")
            seq = event.seq
            try:
                said = self._do(event.target, event.action, lambda end, seq=seq: self._log.report(seq, ended=end))  # type: ignore[misc]
                self._log.report(event.seq, status="done", said=said)
            except (KitError, OSError, ValueError) as error:
                self._log.report(event.seq, status="failed", said=str(error))

    def _next(self) -> Event | None:
        """Wait for the next one that is due."""
        with self._log.changed:
            while not self._ends:
                waiting = (event for event in self._log.events if event.seq not in self._log.reports)
                event = min(waiting, key=lambda event: (event.at, event.seq), default=None)
                left = None if event is None else event.at - self._clock()
                if event is not None and left is not None and left <= 0:
                    return event
                self._log.changed.wait(LOOK_EVERY if left is None else min(left, LOOK_EVERY))
        return None
