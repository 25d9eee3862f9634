"""The state of one ns2 program while it runs, and the rules that hold for all of its commands: handles, names, problems.

A wrong command is noted with its line and the program goes on, as Emulab's parser does, so that one run shows all that is wrong.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from fedkit.topology.errors import Problem
from fedkit.topology.ns2.objects import Event, Node, Passive, Simulator, Swallow, Thing, Wire
from fedkit.topology.tcl_order import TclTable

PROBLEMS_LIMIT = 100
OBJECTS_LIMIT = 100_000  # 10,000 nodes with 20,000 links have 70,000
EVENTS_LIMIT = 14_000  # Emulab's own
_NAME = re.compile(r"[-0-9A-Za-z]+\Z")
_RESERVED = {"ops"}

T = TypeVar("T", bound=Thing)


class Wrong(Exception):
    """A command that cannot be carried out; becomes a `Problem` at its line."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Enough(Exception):
    """The program is given up: too many problems, or too large."""


class Program:
    """Everything that a program has made; `where()` returns the file and line being executed."""

    def __init__(self, where: Callable[[], tuple[str, int | None]]) -> None:
        self._where = where
        self.things: dict[str, Thing] = {}
        self.by_name: dict[str, Thing] = {}
        self.nodes: list[Node] = []
        self.wires: list[Wire] = []
        self.order = TclTable()  # the names of links and LANs, as Emulab's own table of them would list them
        self.passives: list[Passive] = []
        self.events: list[Event] = []
        self.routing: str | None = None
        self.failure_action: str | None = None
        self.settings: list[tuple[str, str]] = []
        self.simulator: Simulator | None = None
        self.ran = False
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self._counter = 0  # Emulab's: shared by nodes, links and LANs
        self._handles = 0

    def error(self, code: str, message: str) -> None:
        """Note an error at the present line."""
        self.fail(*self._where(), code, message)

    def fail(self, file: str, line: int | None, code: str, message: str) -> None:
        """Note an error at a line that is known."""
        self.errors.append(Problem(file, line, code, message))
        if len(self.errors) >= PROBLEMS_LIMIT:
            raise Enough

    def warn(self, code: str, message: str) -> None:
        """Note a warning at the present line."""
        if len(self.warnings) < PROBLEMS_LIMIT:
            self.warnings.append(Problem(*self._where(), code, message))

    def handle(self) -> str:
        """A fresh handle."""
        self._handles += 1
        if self._handles > OBJECTS_LIMIT:
            self.error("ns2.too_large", f"The program makes more than {OBJECTS_LIMIT} objects.")
            raise Enough
        return f"_o{self._handles}"

    def automatic_name(self, prefix: str) -> str:
        """The name of an object that has none yet: `tbnode-n1`, `tblink-l2`, …"""
        self._counter += 1
        return f"{prefix}{self._counter}"

    def keep(self, thing: T) -> T:
        """Add a new object."""
        self.things[thing.handle] = thing
        self.by_name[thing.name] = thing
        if isinstance(thing, Node):
            self.nodes.append(thing)
        elif isinstance(thing, Wire):
            self.wires.append(thing)
            self.order.add(thing.name)
        elif isinstance(thing, Passive):
            self.passives.append(thing)
        return thing

    def named(self, handle: str, variable: str) -> str | None:
        """An object was assigned to a global variable; returns its new name, or None if it keeps the one it has."""
        thing = self.things.get(handle)
        if thing is None or thing.named:
            return None
        name = _name_of(variable)
        other = self.by_name.get(name)
        if other is not None and other is not thing:
            self.error("ns2.duplicate_name", f"There is already an object named {name!r}; choose another variable.")
            return None
        thing.named = True
        self._rename(thing, name)
        return name

    def _rename(self, thing: Thing, name: str) -> None:
        del self.by_name[thing.name]
        if isinstance(thing, Wire):
            self.order.remove(thing.name)
            self.order.add(name)
        thing.name = name
        self.by_name[name] = thing

    def find(self, text: str, kind: type[T], what: str) -> T:
        """The object that a handle or a name means; raise `Wrong` if it is none of that kind."""
        thing = self.things.get(text) or self.by_name.get(text)
        if isinstance(thing, kind):
            return thing
        if thing is not None:
            raise Wrong("ns2.wrong_object", f"{thing.name!r} is no {what}.")
        near = difflib.get_close_matches(text, [n for n, t in self.by_name.items() if isinstance(t, kind)], 1)
        hint = f"; did you mean {near[0]}?" if near else f"; give it the variable of a {what}, such as $a."
        raise Wrong("ns2.unknown_object", f"There is no {what} {text[:80]!r}{hint}")

    def is_node(self, text: str) -> bool:
        """Tell whether a handle or a name means a node."""
        return isinstance(self.things.get(text) or self.by_name.get(text), Node)

    def node(self, text: str) -> Node:
        """The node that `text` means."""
        return self.find(text, Node, "node")

    def wire(self, text: str, kind: str = "link or LAN") -> Wire:
        """The link or LAN that `text` means; with `kind` link or lan, only that."""
        wire = self.find(text, Wire, kind)
        if kind in ("link", "lan") and wire.kind != kind:
            raise Wrong("ns2.wrong_object", f"{wire.name!r} is no {kind} but a {wire.kind}.")
        return wire

    def readable(self, text: str) -> str:
        """A text with names in place of handles."""
        return re.sub(r"\b_o\d+\b", lambda match: self._shown(match[0]), text)

    def _shown(self, handle: str) -> str:
        thing = self.things.get(handle)
        return handle if thing is None or isinstance(thing, Swallow) else thing.name

    def check_names(self) -> None:
        """What Emulab checks when the program runs."""
        things: Iterable[Thing] = (*self.nodes, *self.wires)
        for thing in things:
            if not _NAME.match(thing.name):
                self.error(
                    "ns2.bad_name",
                    f"The name {thing.name!r} has characters other than letters, digits and '-'; rename the variable.",
                )
            elif isinstance(thing, Node) and thing.name in _RESERVED:
                self.error("ns2.bad_name", f"A node cannot be called {thing.name!r}: the name is reserved.")


def _name_of(variable: str) -> str:
    """`n(3)` is `n-3`, `fe(1)-fe(2)` is `fe-1-fe-2`; a leading `::` does not count."""
    return variable.removeprefix("::").replace("(", "-").replace(")", "")
