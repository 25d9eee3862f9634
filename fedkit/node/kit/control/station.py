"""One place of the control network: an agent, or a controller with children, or the top one, which keeps the time of events.

    top ── releases an event shortly before it is due ── log ── courier ──► controller ── log ── courier ──► agent ── log ── runner

Each sends what is new to its children, in order, in their clocks, again until they say that they have it; none waits for another.
How far a child's clock is off is measured each time it is long ago; what that may be wrong by goes along with the event.

Who is root on a child's machine may answer anything in its name (answers.py), and nothing in another's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from fedkit.node.kit.conf import Conf
from fedkit.node.kit.control import answers, hands
from fedkit.node.kit.control.auth import Identity
from fedkit.node.kit.control.client import Client
from fedkit.node.kit.control.clocks import Clock, Offset, measure
from fedkit.node.kit.control.events import Do, Log, Runner, event_of
from fedkit.node.kit.control.zero import Zero
from fedkit.node.kit.errors import BadRequest, KitError
from fedkit.node.kit.system import say

T = TypeVar("T")

MASTER = "seer-master"
AT_ONCE = 16  # children asked at the same time
BATCH = 500  # events of one request
HORIZON = 60.0  # seconds before it is due that an event is sent
MEASURE_EVERY = 30.0  # seconds
PAUSE = 1.0  # seconds between two rounds
REPORTS = 2000  # events that are told of
RELAY_TIMEOUT = 15.0  # seconds that an agent has beyond what a command may take; a controller, which waits for agents, twice as long


@dataclass
class Child:
    """Somebody below."""

    name: str
    client: Client
    busy: bool = False  # somebody sends it what it does not have
    last: int | None = None  # the highest number that it has
    offset: Offset | None = None
    measured: float = 0.0


class Station:
    """Answers requests and keeps events going; `begin` starts its threads, `close` ends them."""

    def __init__(self, conf: Conf, folder: Path, do: Do, clock: Clock = time.time) -> None:
        self.conf = conf
        self._clock = clock
        self.log = Log(folder / "events")
        self.children = [
            Child(name, Client(below.place, Identity(name, below.key))) for name, below in conf.children.items()
        ]
        self._runner = Runner(self.log, clock, do) if not self.children else None
        released = [(event.at, event.node, event.target, event.action) for event in self.log.events]
        self._zero = Zero(folder / "zero", sorted(conf.events, key=lambda event: event[0]), released, clock)
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._carriers = ThreadPoolExecutor(max(len(self.children), 1))  # events wait for nobody
        self._threads = [Thread(target=run, daemon=True) for run in (self._courier, self._timekeeper)]
        self._ends = False
        self._routes: Mapping[tuple[str, str], Callable[[Any], Any]] = {
            ("GET", "/nodes"): lambda _: self.nodes(),
            ("POST", "/run"): self.run,
            ("POST", "/clock"): lambda _: {"time": clock()},
            ("GET", "/events"): lambda _: self.events(),
            ("POST", "/events"): self._take,
            ("POST", "/event"): self._now,
        }

    def begin(self) -> None:
        """Start what goes on by itself."""
        if self._runner:
            self._runner.begin()
        else:
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """End it."""
        self._ends = True
        with self.log.changed:
            self.log.changed.notify_all()
        if self._runner:
            self._runner.close()
        else:
            for thread in self._threads:
                thread.join()
        self._pool.shutdown()
        self._carriers.shutdown()

    def answer(self, method: str, path: str, said: Any) -> Any:
        """What a request gets; raises `KitError`, or what Python raises for a body that is no such request."""
        route = self._routes.get((method, path))
        if route is None:
            raise BadRequest(f"there is no {method} {path[:80]}")
        return route(said)

    # Nodes

    def nodes(self) -> dict[str, Any]:
        """All nodes below and how they are; whoever does not answer, with why."""
        if not self.children:
            return {"nodes": {self.conf.name: {**hands.state(), "time": self._clock()}}, "unreachable": {}}
        found, unreachable = self._ask_all(self.children, "GET", "/nodes", None, answers.nodes)
        own = {} if self._is_master else {"controller": self.conf.name}
        nodes: dict[str, Any] = {}
        for told, away in found.values():
            nodes = {node: {**one, **own} for node, one in told.items()} | nodes
            unreachable = away | unreachable
        return {"nodes": nodes, "unreachable": unreachable}

    def run(self, said: Any) -> dict[str, Any]:
        """Run `command` on `nodes` (none named: all), for `timeout` seconds at most."""
        names, timeout = said.get("nodes") or [], float(said.get("timeout", hands.RUN_LIMIT))
        if not math.isfinite(timeout):
            raise BadRequest("timeout is a number of seconds")
        timeout = min(max(timeout, 0.0), hands.RUN_LIMIT)
        if not self.children:
            if names and self.conf.name not in names:
                return {"output": {}, "failed": {}}
            return {"output": {self.conf.name: hands.run(said["command"], timeout)}, "failed": {}}
        asked = [child for child in self.children if self._is_master or not names or child.name in names]
        told = {**said, "relayed": True}
        found, failed = self._ask_all(asked, "POST", "/run", told, answers.output, timeout)
        output: dict[str, Any] = {}
        for printed, not_done in found.values():
            output = printed | output
            failed = not_done | failed
        if not said.get("relayed"):
            failed |= {name: "there is no such node" for name in names if name not in output and name not in failed}
        return {"output": output, "failed": failed}

    # Events

    def events(self) -> dict[str, Any]:
        """What was sent here, and of each that began when and how; the newest `REPORTS`."""
        if not self.children:
            known = {event.seq: {**asdict(event), **self.log.reports.get(event.seq, {})} for event in self.log.events}
        else:
            known = {event.seq: asdict(event) for event in self.log.events}
            found, _ = self._ask_all(self.children, "GET", "/events", None, answers.events)
            for name, told in found.items():
                its = {seq for seq, event in known.items() if self._is_master or event["node"] == name}
                known |= {seq: event for seq, event in told.items() if "status" in event and seq in its}
        return {"events": [known[seq] for seq in sorted(known)][-REPORTS:]}

    def _take(self, said: Any) -> dict[str, Any]:
        return {"last": self.log.add(map(event_of, said["events"]))}

    def _now(self, said: Any) -> dict[str, Any]:
        words = [said["node"], said["target"], said["action"]]
        if not all(isinstance(word, str) and word for word in words):
            raise BadRequest("an event has a node, a target and an action")
        return {"seq": self.log.release([(self._clock(), words[0], words[1], words[2])])}

    # The timekeeper, and the courier

    def _timekeeper(self) -> None:
        while not self._ends:
            try:
                self._release()
            except (KitError, OSError) as error:  # the disk is full, or there are too many events
                say(f"no event can be released: {error}")
            with self.log.changed:
                self.log.changed.wait_for(lambda: self._ends, PAUSE)

    def _courier(self) -> None:
        while not self._ends:
            until = self.log.last
            for child in [child for child in self.children if not child.busy]:
                child.busy = True
                self._carriers.submit(self._serve, child)
            with self.log.changed:
                if not self._ends and self.log.last == until:
                    self.log.changed.wait(PAUSE)

    def _release(self) -> None:
        """Give numbers to the events of ours that are due soon."""
        if self.conf.events:
            if self._zero.at is None:
                self._zero.perhaps({event[1] for event in self.conf.events} <= set(self.nodes()["nodes"]))
            due = self._zero.due(HORIZON)
            self.log.release(due)
            self._zero.told(len(due))

    def _serve(self, child: Child) -> None:
        """Send a child what it does not have."""
        try:
            if child.last is None:
                child.last = int(child.client.ask("POST", "/events", {"events": []})["last"])
            while (new := self._new(child)) and not self._ends:
                told = [asdict(event) for event in new]
                offset = self._offset(child)
                for event in told:
                    event["at"] += offset.seconds
                    event["error"] += offset.bound
                last = int(child.client.ask("POST", "/events", {"events": told})["last"])
                if last <= child.last:  # it takes none of them, and is asked again in a while
                    break
                child.last = last
        except (KitError, *answers.NONSENSE):
            child.last = None  # it may come back with less, or not be what it was
        finally:
            child.busy = False

    def _new(self, child: Child) -> Sequence[Any]:
        with self.log.changed:
            new = [
                e for e in self.log.events if e.seq > (child.last or 0) and (self._is_master or e.node == child.name)
            ]
        return new[:BATCH]

    def _offset(self, child: Child) -> Offset:
        now = time.monotonic()
        if child.offset is None or now - child.measured > MEASURE_EVERY:
            child.offset = measure(lambda: float(child.client.ask("POST", "/clock")["time"]), self._clock)
            child.measured = now
        return child.offset

    @property
    def _is_master(self) -> bool:
        return self.conf.role == MASTER

    def _ask_all(
        self,
        children: Sequence[Child],
        method: str,
        path: str,
        said: Any,
        read: answers.Reader[T],
        more: float = 0.0,
    ) -> tuple[dict[str, T], dict[str, str]]:
        """What was read of the answers by child, and why there is none; `more` seconds are what they need for it."""
        timeout = more + (2 * RELAY_TIMEOUT if self._is_master else RELAY_TIMEOUT)

        def ask(child: Child) -> T | KitError:
            try:
                answer = answers.shallow(child.client.ask(method, path, said, timeout))
                return read(answer, None if self._is_master else child.name)
            except KitError as error:
                return error
            except answers.NONSENSE:
                return BadRequest(f"{child.name} answers nonsense")

        found = dict(zip((child.name for child in children), self._pool.map(ask, children), strict=True))
        failed = {name: str(answer) for name, answer in found.items() if isinstance(answer, KitError)}
        return {name: answer for name, answer in found.items() if not isinstance(answer, KitError)}, failed
