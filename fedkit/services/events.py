"""Events of a description (`$ns at`, program agents, links), made ready for a scheduler and for the agents that carry them out.

    $ns at 5.0 "$prog start"     Event: 5 a prog start           to the top controller, which keeps the time
    $ns at 9.0 "$link0 down"     Event: 9 a link0 down, Event: 9 b link0 down
                                 Program: prog {"command": …}, Link: link0 10.1.1.2     to the nodes

Groups stand for their members, timelines for events at times after their own start; an event list may name others, to a bounded
depth. What nothing here carries out (traffic generators, event sequences) is told by `unserved`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache

from fedkit.services.contract import Setting
from fedkit.services.errors import UnusableService
from fedkit.topology.model import Computer, Topology

DEPTH = 4  # event lists in event lists
EVENTS_LIMIT = 20_000  # what a scheduler takes (node/kit/control/events.py)
STEPS_LIMIT = 100_000  # events and members of lists that are looked at
TIMELINE, GROUP, PROGRAM = "EventTimeline", "EventGroup", "Program"
_OPTIONS = ("command", "dir", "timeout", "expected-exit-code")


@dataclass(frozen=True)
class Happening:
    """At `time` (seconds after the experiment began) this is done to a target by a node."""

    time: float
    node: str
    target: str
    action: str


@dataclass(frozen=True)
class _Targets:
    programs: Mapping[str, Mapping[str, str]]
    lists: Mapping[str, tuple[str, list[str]]] = field(default_factory=dict)


def event_settings(controller: str, topology: Topology, testbeds: Set[str]) -> Iterator[Setting]:
    """The events that nodes of these testbeds carry out, for the scheduler."""
    here = {computer.name for computer in topology.computers if computer.testbed in testbeds}
    for event in happenings(topology):
        if event.node in here:
            yield Setting(controller, "Event", f"{event.time:.15g} {event.node} {event.target} {event.action}")


def told_to_nodes(node: Computer, topology: Topology) -> Iterator[Setting]:
    """What a node's agent must know to carry out events: its programs, and where its links are."""
    for name, said in _targets(topology).programs.items():
        if said.get("node") == node.name:
            told = {option: said[option] for option in _OPTIONS if option in said}
            yield Setting(node.name, PROGRAM, f"{name} {json.dumps(told)}")
    if not any(attribute.name == "event" for attribute in topology.attributes):
        return
    for interface in node.interfaces:
        for substrate in interface.substrates:
            if interface.ip4:
                yield Setting(node.name, "Link", f"{substrate} {interface.ip4}")


def happenings(topology: Topology) -> list[Happening]:
    """All events that somebody carries out, by time; at one time in the order of the file. Raises `UnusableService`."""
    walk = _Walk(topology)
    found = [event for time, words in _said(topology) for event in walk.events(time, words)]
    if len(found) > EVENTS_LIMIT:
        raise UnusableService(f"The events of the description are more than {EVENTS_LIMIT}.")
    return sorted(found, key=lambda event: event.time)


def unserved(topology: Topology) -> list[str]:
    """The events that nobody carries out, as the description has them. Raises `UnusableService`."""
    walk = _Walk(topology)
    return [f"{time:.15g} {words}" for time, words in _said(topology) if not list(walk.events(time, words))]


def _said(topology: Topology) -> Iterator[tuple[float, str]]:
    for attribute in topology.attributes:
        if attribute.name == "event":
            time, _, words = attribute.value.partition(" ")
            yield _seconds(time), words.strip()


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UnusableService(f"An event is at a time in seconds, and not at {text[:40]!r}.")
    return value


class _Walk:
    """One look at the events of a topology: event lists name one another as they like, and what is looked at is bounded."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._targets = _targets(topology)
        self._left = STEPS_LIMIT

    def events(self, time: float, words: str, depth: int = DEPTH) -> Iterator[Happening]:
        """What one event of the description stands for."""
        self._step()
        target, _, action = words.lstrip("$").partition(" ")
        if not action or depth == 0:
            return
        if target in self._targets.programs:
            yield Happening(time, self._targets.programs[target].get("node", ""), target, action)
        elif target in self._targets.lists:
            for later, event in self._listed(target, action):
                yield from self.events(time + later, event, depth - 1)
        else:
            for end, _interface in self._topology.ends.get(target, ()):
                self._step()
                if isinstance(end, Computer):
                    yield Happening(time, end.name, target, action)

    def _listed(self, target: str, action: str) -> Iterator[tuple[float, str]]:
        kind, members = self._targets.lists[target]
        if kind == GROUP:
            yield from ((0.0, f"{member} {action}") for member in members)
        elif action == "start":
            yield from ((_seconds(later), event) for later, event in zip(members[::2], members[1::2], strict=False))

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise UnusableService(f"Event groups and timelines stand for more than {STEPS_LIMIT} events.")


@lru_cache(maxsize=4)
def _targets(topology: Topology) -> _Targets:
    programs, lists = {}, {}
    for attribute in topology.attributes:
        if attribute.name == "agent":
            kind, _, said = attribute.value.partition("\n")
            if not said:
                raise UnusableService(f"The agent {kind[:40]!r} has no name.")
            name, *rest = said.split("\n")
            if kind == PROGRAM:
                programs[name] = {key: value for key, _, value in (line.partition("=") for line in rest)}
            elif kind in (TIMELINE, GROUP):
                lists[name] = (kind, rest)
    return _Targets(programs, lists)
