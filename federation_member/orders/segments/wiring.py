"""What a piece's description comes to: its computers, and for each substrate a network with its prefix.

A description that cannot be embedded is refused here, before anything is granted: every interface needs an address on one substrate,
and all addresses of a substrate lie in one subnet. Reading one takes time in proportion to its length, so the last few are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Interface

from pydantic import TypeAdapter, ValidationError

from federation_member.orders.segments.errors import UnusableSegment
from fedkit.protocol.segments import ConnectorSpec, NodeName, WireName
from fedkit.topology import topdl
from fedkit.topology.model import Computer, Interface, Substrate
from fedkit.topology.shaping import Shape, shape_of

KEPT = 8  # descriptions
INTERFACES_LIMIT = 32  # of one machine, as a lender takes it
NODE_NAME: TypeAdapter[str] = TypeAdapter(NodeName)
WIRE_NAME: TypeAdapter[str] = TypeAdapter(WireName)


@dataclass(frozen=True)
class Plug:
    """Where a computer is on a substrate."""

    substrate: str
    address: str


@dataclass(frozen=True)
class Wiring:
    """Computers and networks by name, in the order of the file, and where each computer is plugged in."""

    computers: Mapping[str, Computer]
    plugs: Mapping[str, tuple[Plug, ...]]
    networks: Mapping[str, str]  # prefixes
    substrates: Mapping[str, Substrate]

    def shapes(self, computer: str) -> dict[str, Shape]:
        """How the interfaces of a computer are to be, by address."""
        interfaces = self.computers[computer].interfaces
        found = zip(self.plugs[computer], interfaces, strict=True)
        return {plug.address: shape_of(interface, self.substrates) for plug, interface in found}

    def check(self, connectors: Iterable[ConnectorSpec]) -> None:
        """Raise `UnusableSegment` for a crossing of what is not there, or a name that stands for two."""
        names = set(self.computers)
        for connector in connectors:
            if connector.name in names:
                raise UnusableSegment(f"Two of this segment are called {connector.name}.")
            names.add(connector.name)
            for crossing in connector.crossings:
                if crossing.substrate not in self.networks:
                    raise UnusableSegment(
                        f"{connector.name} carries {crossing.substrate}, and no computer of this segment is on that."
                    )


@lru_cache(maxsize=KEPT)
def read(description: str) -> Wiring:
    """Read a piece's topdl; raises `BadDescription` or `UnusableSegment`."""
    topology = topdl.read(description.encode(), "segment")
    computers = {computer.name: computer for computer in topology.computers}
    plugs: dict[str, tuple[Plug, ...]] = {}
    networks: dict[str, str] = {}
    for name, computer in computers.items():
        _check_name(NODE_NAME, name)
        if len(computer.interfaces) > INTERFACES_LIMIT:
            raise UnusableSegment(f"{name} has more than {INTERFACES_LIMIT} interfaces.")
        found = [_plug(name, interface, networks) for interface in computer.interfaces]
        if len({plug.substrate for plug in found}) < len(found):
            raise UnusableSegment(f"{name} is twice on one substrate; a machine joins a network once.")
        plugs[name] = tuple(found)
    return Wiring(computers, plugs, networks, {one.name: one for one in topology.substrates})


def _plug(name: str, interface: Interface, networks: dict[str, str]) -> Plug:
    """Where an interface is; its network becomes known by it."""
    if len(interface.substrates) != 1 or not interface.ip4 or not interface.netmask:
        raise UnusableSegment(f"The interface {interface.name} of {name} needs an address on exactly one substrate.")
    substrate = interface.substrates[0]
    _check_name(WIRE_NAME, substrate)
    try:
        address = IPv4Interface(f"{interface.ip4}/{interface.netmask}")
    except ValueError as error:
        raise UnusableSegment(f"The interface {interface.name} of {name} has no address: {error}.") from error
    prefix = networks.setdefault(substrate, str(address.network))
    if prefix != str(address.network):
        raise UnusableSegment(f"{name} is on {substrate} with {address}, and others are in {prefix} there.")
    return Plug(substrate, str(address.ip))


def _check_name(kind: TypeAdapter[str], name: str) -> None:
    try:
        kind.validate_python(name)
    except ValidationError as error:
        raise UnusableSegment(f"{name[:80]!r} is no name for a part of a segment.") from error
