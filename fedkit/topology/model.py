"""A topology: computers and what else stands at the ends of wires, and the substrates (links and LANs) that join them.

The shape is that of topdl 1.0, the richest of the formats, so that a round trip through any of them loses nothing that the
format can carry. What Emulab says about a node beyond that (its testbed, its start command, …) are attributes by the names that
fedd gave them; the properties here read them, so nobody else needs to know those names.

    Topology ─┬─ Substrate "link0"   capacity, latency
              └─ Computer "a" ── Interface "inf000" on "link0"   ip4_address, ip4_netmask, loss

Everything is immutable; `dataclasses.replace` makes the changed copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

from fedkit.topology.errors import Problem

Kind = Literal["link", "lan"]
FailureAction = Literal["fatal", "nonfatal", "ignore"]
RateKind = Literal["max", "average"]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One name and value; a name may occur more than once."""

    name: str
    value: str


Attributes = tuple[Attribute, ...]


class Attributed:
    """Whatever carries attributes."""

    __slots__ = ()
    attributes: Attributes

    def get(self, name: str) -> str | None:
        """The value of the first attribute of that name."""
        return next((attribute.value for attribute in self.attributes if attribute.name == name), None)

    def with_attributes(self, changes: Mapping[str, str | None]) -> Self:
        """A copy in which each of these attributes has the given value alone; None removes it."""
        kept = [a for a in self.attributes if a.name not in changes]
        new = [Attribute(name, value) for name, value in changes.items() if value is not None]
        return replace(self, attributes=(*kept, *new))  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Capacity:
    """A rate in kb/s (1000 bit/s)."""

    rate: float
    kind: RateKind = "max"


@dataclass(frozen=True, slots=True)
class Latency:
    """A delay in milliseconds."""

    time: float
    kind: RateKind = "max"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a service that an element offers."""

    name: str
    type: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class ElementService:
    """A service that an element offers (topdl `service`)."""

    name: str
    importers: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    description: str | None = None
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Interface(Attributed):
    """One end on one or more substrates."""

    name: str
    substrates: tuple[str, ...]
    capacity: Capacity | None = None
    latency: Latency | None = None
    attributes: Attributes = ()

    @property
    def ip4(self) -> str | None:
        """Its address in dotted form."""
        return self.get("ip4_address")

    @property
    def netmask(self) -> str | None:
        """Its netmask in dotted form."""
        return self.get("ip4_netmask")

    @property
    def loss(self) -> float:
        """The rate of packets lost on the way to and from it, 0 to 1; what is no such number counts as not said."""
        try:
            rate = float(self.get("loss") or 0)
        except ValueError:
            return 0.0
        return rate if 0 <= rate <= 1 else 0.0


@dataclass(frozen=True, slots=True)
class Cpu(Attributed):
    """Processors of one type."""

    type: str
    count: int = 1
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class OperatingSystem(Attributed):
    """What runs on a computer; Emulab names it by the attribute `osid` alone."""

    name: str | None = None
    version: str | None = None
    distribution: str | None = None
    distribution_version: str | None = None
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class Software(Attributed):
    """A package to fetch from `location`; unpacked under `install`, or an rpm where there is none."""

    location: str
    install: str | None = None
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True)
class Storage(Attributed):
    """Room on disk, in MB."""

    amount: float
    persistence: Literal["temporary", "persistent"]
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node(Attributed):
    """What computers and testbeds have in common."""

    interfaces: tuple[Interface, ...] = ()
    attributes: Attributes = ()
    local_names: tuple[str, ...] = ()
    status: str | None = None
    services: tuple[ElementService, ...] = ()
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Computer(Node):
    """A machine."""

    name: str
    cpus: tuple[Cpu, ...] = ()
    os: tuple[OperatingSystem, ...] = ()
    software: tuple[Software, ...] = ()
    storage: tuple[Storage, ...] = ()

    @property
    def testbed(self) -> str | None:
        """Where it shall run: `name` or `name/subname`, a name of the experimenter's own."""
        return self.get("testbed")

    @property
    def osid(self) -> str | None:
        """The image that it boots."""
        for system in self.os:
            named = system.get("osid") or system.name
            if named:
                return named
        return None

    @property
    def hardware(self) -> str | None:
        """The Emulab hardware type."""
        return self.get("type")

    @property
    def startup(self) -> str | None:
        """The command that runs when it is up."""
        return self.get("startup")

    @property
    def failure_action(self) -> FailureAction:
        """What it means for the experiment if this one cannot be had; Emulab's default is fatal."""
        action = self.get("failureaction")
        return action if action in ("nonfatal", "ignore") else "fatal"  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Testbed(Node):
    """A testbed as a whole, as an end of a wire."""

    __test__ = False  # not a test class

    uri: str
    type: str


@dataclass(frozen=True, slots=True)
class Id:
    """How a segment is named; `kind` is one of fedd's IDType choice: uuid, fedid, uri, localname, kerberosUsername."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(Attributed):
    """A part of an experiment that stands elsewhere, as an end of a wire."""

    id: Id
    type: str
    uri: str
    interfaces: tuple[Interface, ...] = ()
    attributes: Attributes = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Other(Attributed):
    """Anything else at the end of a wire."""

    interfaces: tuple[Interface, ...] = ()
    attributes: Attributes = ()


Element = Computer | Testbed | Segment | Other


@dataclass(frozen=True, slots=True)
class Substrate(Attributed):
    """A link or a LAN."""

    name: str
    capacity: Capacity | None = None
    latency: Latency | None = None
    attributes: Attributes = ()
    local_names: tuple[str, ...] = ()
    status: str | None = None
    services: tuple[ElementService, ...] = ()
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Service(Attributed):
    """A federation service of the whole experiment (fedd's createServiceInfo), such as project_export."""

    name: str
    exporters: tuple[str, ...] = ()
    importers: tuple[str, ...] = ()
    import_all: bool = False
    attributes: Attributes = ()


@dataclass(frozen=True)
class Topology(Attributed):
    """A whole description, or one piece of one; `routing` as Emulab's rtproto says it."""

    substrates: tuple[Substrate, ...] = ()
    elements: tuple[Element, ...] = ()
    attributes: Attributes = ()
    services: tuple[Service, ...] = ()
    routing: str | None = None
    version: str = "1.0"

    @property
    def computers(self) -> Iterator[Computer]:
        """The computers, in the order of the file."""
        return (element for element in self.elements if isinstance(element, Computer))

    @cached_property
    def ends(self) -> Mapping[str, tuple[tuple[Element, Interface], ...]]:
        """Who is on each substrate, in the order of the file."""
        found: dict[str, list[tuple[Element, Interface]]] = {substrate.name: [] for substrate in self.substrates}
        for element in self.elements:
            for interface in element.interfaces:
                for name in interface.substrates:
                    found.setdefault(name, []).append((element, interface))
        return {name: tuple(ends) for name, ends in found.items()}

    def kind_of(self, substrate: Substrate) -> Kind:
        """`lan` where the description says so or more than two meet, else `link`."""
        said = substrate.get("kind")
        if said in ("link", "lan"):
            return said  # type: ignore[return-value]
        return "link" if len(self.ends.get(substrate.name, ())) == 2 else "lan"


@dataclass(frozen=True)
class Described:
    """What a reader returns: the topology, what its author should look at, and what the program itself wrote (`puts`)."""

    topology: Topology
    warnings: tuple[Problem, ...] = ()
    output: str = ""


def unnamed_interfaces_named(interfaces: Iterable[Interface]) -> tuple[Interface, ...]:
    """Give those without a name `inf000`, `inf001`, …, unique within their element, as topdl's own library does."""
    given = list(interfaces)
    taken = {interface.name for interface in given}
    fresh = (name for number in range(len(given) + len(taken)) if (name := f"inf{number:03d}") not in taken)
    return tuple(i if i.name else replace(i, name=next(fresh)) for i in given)
