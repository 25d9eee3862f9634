"""Changes that are processes: a daemon that runs while the node is one, and the command that its author wants to run once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedkit.node.kit import shield
from fedkit.node.kit.system import System


def digest(text: str) -> str:
    """Of what a daemon has read: it is started anew when that changes."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


@dataclass(frozen=True)
class Daemon:
    """A program that runs, behind a shield (shield.py) if need be; if it was killed, the next run of the kit starts it again."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    shielded: bool = False

    @property
    def key(self) -> str:
        """Its name."""
        return f"daemon {self.name}"

    def before(self, system: System) -> Any:
        """Nothing but the life that it is of."""
        return {"life": system.life}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Start it unless it runs."""
        if not system.running(self.name):
            system.start(self.name, self.command, self.environment, first=shield.put_on if self.shielded else None)

    def undo(self, system: System, before: Any) -> None:
        """End it, and what it started."""
        system.end(self.name)


@dataclass(frozen=True)
class Startup:
    """The start command: once in each life of the machine. Cut off between its start and the note of it, it starts a second time."""

    command: str

    @property
    def key(self) -> str:
        """There is one."""
        return "startup"

    def before(self, system: System) -> Any:
        """Nothing but the life that it is of."""
        return {"life": system.life}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Start it."""
        if not made and not system.running(self.key):
            system.say(f"starting: {self.command}")
            system.start(self.key, ["/bin/sh", "-c", self.command])

    def undo(self, system: System, before: Any) -> None:
        """End it, and what it started."""
        system.end(self.key)
