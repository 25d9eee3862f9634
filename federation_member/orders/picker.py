"""Which candidate to ask first: a plug-in point (entry point group `fedmesh.picker`).

A picker is a class without constructor arguments. It is asked once for every request to be sent, inside a transaction
and on a thread of its own: it must be quick, must not block, and sees only candidates that fit and are thought alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Protocol

from federation_member.orders.candidates import KnownMember
from federation_member.orders.model import Order
from fedkit.config import UnusableConfig

GROUP = "fedmesh.picker"


class Picker(Protocol):
    """Ranks candidates."""

    def rank(self, order: Order, candidates: Sequence[KnownMember]) -> Sequence[KnownMember]:
        """Return `candidates` (at least one), best first; those left out are not asked now."""


class RoundRobinPicker:
    """Asks everybody in turn: whoever stands after the one that was ranked first last time."""

    def __init__(self) -> None:
        self._last = ""

    def rank(self, order: Order, candidates: Sequence[KnownMember]) -> Sequence[KnownMember]:
        """Rank by fedid, beginning after the last first."""
        del order  # all orders are alike here
        ranked = sorted(candidates, key=lambda member: (member.fedid <= self._last, member.fedid))
        self._last = ranked[0].fedid
        return ranked


def load_picker(name: str) -> Picker:
    """Make the picker that is installed under `name`."""
    found = entry_points(group=GROUP)
    if name not in found.names:
        raise UnusableConfig(f"There is no picker {name!r}; installed: {', '.join(sorted(found.names))}.")
    picker: Picker = found[name].load()()
    return picker
