"""What a service is: a plug-in that says, of an experiment that uses it, what its nodes are told.

    use       `project_export` from deter to ucb, with project=TIED: what the description says, checked
    expand    uses that it stands for, under the same id (SMB and userconfig)
    extend    nodes and LANs that it needs beyond the user's own
    settings  lines of `client.conf` for nodes: at the exporter, at importers

Everything is a pure function of the topology and of the scene, so asking again gives the same. A new service is one file: a subclass of
`Service`, named by an entry point of the group `fedmesh.service`; docs/federation-kit.md shows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from fedkit.services.scene import Scene
from fedkit.topology.model import Topology

ANYTHING = re.compile(r"[^\x00-\x1f]{1,1024}")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
NAMES = re.compile(rf"{NAME.pattern}([ ,]+{NAME.pattern})*")


@dataclass(frozen=True)
class Attribute:
    """One that a service takes: what its value is like, in words as well, and whether it has to be there."""

    says: str
    pattern: re.Pattern[str] = ANYTHING
    required: bool = False


@dataclass(frozen=True)
class Use:
    """One use of a service; `exporters` and `importers` are testbeds of the description by their full names."""

    id: str
    service: str
    exporters: tuple[str, ...] = ()
    importers: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def testbeds(self) -> tuple[str, ...]:
        """All that have to do with it, exporters first."""
        return tuple(dict.fromkeys((*self.exporters, *self.importers)))


@dataclass(frozen=True)
class Setting:
    """A line of one node's `client.conf`."""

    node: str
    key: str
    value: str


class Service:
    """Base of all services, and one that does nothing; a subclass says what is different."""

    name: ClassVar[str]
    attributes: ClassVar[Mapping[str, Attribute]] = {}
    exporters: ClassVar[tuple[int, int]] = (1, 1)  # how many testbeds may export it, least and most
    turn: ClassVar[int] = 0  # services with a lower number extend the topology first

    def check(self, use: Use, topology: Topology) -> None:
        """Raise `UnusableService`, or another `InputError`, for what general checks cannot know."""

    def expand(self, use: Use) -> Iterable[Use]:
        """The uses that it stands for; by default itself."""
        return (use,)

    def extend(self, use: Use, topology: Topology) -> Topology:
        """The topology with what it needs; new interfaces need no addresses."""
        return topology

    def settings(self, use: Use, scene: Scene) -> Iterable[Setting]:
        """What nodes are told."""
        return ()


Services = Mapping[str, Service]
