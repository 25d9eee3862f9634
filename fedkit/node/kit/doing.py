"""Makes the machine as it is wanted, and as it was: `carry_out` and `undo`.

A change that holds already does nothing. One that is wanted no longer, or differently, is undone first. What may work a little later is
tried again until `patience` is over; what fails hinders nothing else, and is told in the end. What lived in the kernel of an earlier boot
(its `before` names another `life`) is gone, so there is nothing to undo.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from fedkit.node.kit.errors import KitError, NotYet
from fedkit.node.kit.journal import Entry, Journal
from fedkit.node.kit.system import System

PAUSE = 1.0  # seconds between two tries


class Change(Protocol):
    """One thing that the kit changes; a frozen dataclass of texts, numbers and lists, so that the journal can hold it."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def key(self) -> str:
        """What is changed; two changes of one thing have one key."""

    def before(self, system: System) -> Any:
        """What undoing it needs, as JSON."""

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Make it hold, whether or not it does already (`made`: it was, once); raises `KitError` or `OSError`."""

    def undo(self, system: System, before: Any) -> None:
        """Make it as it was, whether or not it was made; raises `KitError` or `OSError`."""


Kinds = dict[str, type[Change]]


def carry_out(
    system: System, journal: Journal, wanted: Sequence[Change], kinds: Kinds, patience: float = 0.0
) -> list[str]:
    """Make all of them hold, in their order; returns what failed, in words."""
    keys = {change.key: change for change in wanted}
    for entry in reversed(list(journal.entries.values())):
        if entry.key not in keys or _wants(keys[entry.key]) != entry.wants or _is_gone(system, entry):
            _undo(system, journal, entry, kinds)
    until = time.monotonic() + patience
    failed = []
    for change in wanted:
        problem = _begin(system, journal, change) or _make(system, change, journal.entries[change.key], until)
        if problem:
            failed.append(f"{change.key}: {problem}")
            system.say(f"failed: {failed[-1]}")
        else:
            journal.made(change.key)
    return failed


def undo(system: System, journal: Journal, kinds: Kinds) -> list[str]:
    """Undo all of them, the last one first; returns what could not be undone, which stays in the journal."""
    failed = []
    for entry in reversed(list(journal.entries.values())):
        try:
            _undo(system, journal, entry, kinds)
        except (KitError, OSError) as error:
            failed.append(f"{entry.key}: {error}")
            system.say(f"not undone: {failed[-1]}")
    return failed


def _begin(system: System, journal: Journal, change: Change) -> str:
    """Write down what is to be changed, if it is not yet; returns why it cannot be."""
    if change.key not in journal.entries:
        try:
            before = change.before(system)
        except KitError as error:
            return str(error)
        journal.record(Entry(change.key, type(change).__name__, _wants(change), before))
    return ""


def _make(system: System, change: Change, entry: Entry, until: float) -> str:
    while True:
        try:
            change.make(system, entry.before, made=entry.made)
        except NotYet as error:
            if time.monotonic() >= until:
                return str(error)
            time.sleep(PAUSE)
        except (KitError, OSError) as error:
            return str(error)
        else:
            return ""


def _undo(system: System, journal: Journal, entry: Entry, kinds: Kinds) -> None:
    if not _is_gone(system, entry):
        kinds[entry.kind](**entry.wants).undo(system, entry.before)
    journal.strike(entry.key)


def _is_gone(system: System, entry: Entry) -> bool:
    return isinstance(entry.before, dict) and entry.before.get("life", system.life) != system.life


def _wants(change: Change) -> dict[str, Any]:
    wants: dict[str, Any] = json.loads(json.dumps(asdict(change)))  # as the journal gives it back
    return wants
