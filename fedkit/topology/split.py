"""Splits one description into a piece for each testbed (`name`, or `name/subname`), and says where the pieces are joined.

    a,b on deter; c,d,e on ucb; link1 joins b and c, lan0 joins c, d, e

    piece deter   a  b  ucbtunnel0      link0 (a, b)   link1 (b, ucbtunnel0 standing for c)
    piece ucb     c  d  e  detertunnel0 lan0 (c, d, e) link1 (c, detertunnel0 standing for b)

What lies within one testbed stays whole. What crosses is cut: each side keeps its own members, and a connector (portal) stands for all
that is beyond it. A LAN over more than two testbeds is joined as a star around the testbed that has most of its members, so there
is no loop whatever the portals do. Parallel crossings between two testbeds stay apart: they share `portals` connectors in
turn, and on each the portals keep them apart by tag.

Addresses must be there already: they are numbered once for the whole and then written into every piece.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fedkit.errors import InputError
from fedkit.topology.json_form import computer_as_json, substrate_as_json
from fedkit.topology.model import Computer, Interface, Substrate, Topology


class CannotSplit(InputError):
    """A description whose pieces cannot be told apart."""

    code = "topology.cannot_split"


@dataclass(frozen=True)
class Crossing:
    """One cut substrate at one connector: which far computers are beyond it, and their addresses there."""

    substrate: str
    stands_for: tuple[str, ...]
    ip4: tuple[str, ...]


@dataclass(frozen=True)
class Connector:
    """The end of a way to another testbed; `name` is that of its computer in the piece."""

    name: str
    peer: str
    crossings: tuple[Crossing, ...]


@dataclass(frozen=True)
class Piece:
    """What one testbed gets; `topology` holds its own computers and the substrates that they are on."""

    testbed: str
    topology: Topology
    connectors: tuple[Connector, ...]

    def as_json(self) -> dict[str, Any]:
        """An entry of `pieces` (DESIGN §9)."""
        substrates = {substrate.name: substrate for substrate in self.topology.substrates}
        return {
            "testbed": self.testbed,
            "computers": [computer_as_json(computer, substrates) for computer in self.topology.computers],
            "substrates": [substrate_as_json(self.topology, substrate) for substrate in self.topology.substrates],
            "connectors": [
                {
                    "name": connector.name,
                    "peer": connector.peer,
                    "crossings": [
                        {"substrate": c.substrate, "stands_for": list(c.stands_for), "ip4": list(c.ip4)}
                        for c in connector.crossings
                    ],
                }
                for connector in self.connectors
            ],
        }


@dataclass(frozen=True)
class Split:
    """All pieces, in the order in which their testbeds occur, and the names of what was cut, in the order of the file."""

    pieces: tuple[Piece, ...]
    crossings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The shape of `fed experiment split -o json`."""
        return {"pieces": [piece.as_json() for piece in self.pieces], "crossings": list(self.crossings)}


Members = Mapping[str, Sequence[tuple[Computer, Interface]]]  # of one substrate, by testbed


def split(topology: Topology, portals: int = 1) -> Split:
    """Split a description whose computers all have a testbed; between two testbeds there are at most `portals` connectors.

    Raises `CannotSplit` for a computer without a testbed, or an end that is no computer.
    """
    testbeds = _testbeds(topology)
    cut: dict[str, Members] = {}
    within: dict[str, list[Substrate]] = {testbed: [] for testbed in testbeds}
    for substrate in topology.substrates:
        members = _by_testbed(topology, substrate)
        if len(members) > 1:
            cut[substrate.name] = members
        for testbed in members:
            within[testbed].append(_said(topology, substrate) if len(members) > 1 else substrate)
    ways = _ways(cut, testbeds)
    pieces = []
    for testbed in testbeds:
        own = tuple(computer for computer in topology.computers if computer.testbed == testbed)
        taken = {computer.name for computer in topology.computers}
        piece = replace(topology, elements=own, substrates=tuple(within[testbed]))
        pieces.append(Piece(testbed, piece, tuple(_connectors(testbed, ways, cut, portals, taken))))
    return Split(tuple(pieces), tuple(cut))


def _testbeds(topology: Topology) -> list[str]:
    homeless = [computer.name for computer in topology.computers if not computer.testbed]
    if homeless:
        raise CannotSplit(f"No testbed is given for {', '.join(homeless[:5])}; say tb-set-node-testbed for each.")
    if any(not isinstance(element, Computer) and element.interfaces for element in topology.elements):
        raise CannotSplit("Only computers can be split over testbeds; there is another element with interfaces.")
    return list(dict.fromkeys(str(computer.testbed) for computer in topology.computers))


def _by_testbed(topology: Topology, substrate: Substrate) -> Members:
    members: dict[str, list[tuple[Computer, Interface]]] = defaultdict(list)
    for element, interface in topology.ends[substrate.name]:
        assert isinstance(element, Computer)
        members[str(element.testbed)].append((element, interface))
    return members


def _said(topology: Topology, substrate: Substrate) -> Substrate:
    """A cut substrate that says what it is, because in a piece its members can no longer be counted."""
    return substrate.with_attributes({"kind": topology.kind_of(substrate)})


@dataclass(frozen=True)
class _Way:
    """One substrate joined between two testbeds, and which testbeds are beyond it on either side."""

    substrate: str
    ends: tuple[str, str]
    beyond: Mapping[str, frozenset[str]]  # seen from each end


def _ways(cut: Mapping[str, Members], testbeds: Sequence[str]) -> list[_Way]:
    """How each cut substrate is joined: a star around the testbed with most members, the first of those with equally many."""
    ways = []
    for name, members in cut.items():
        hub = max(members, key=lambda testbed: (len(members[testbed]), -testbeds.index(testbed)))
        for spoke in (testbed for testbed in testbeds if testbed in members and testbed != hub):
            beyond = {hub: frozenset({spoke}), spoke: frozenset(members) - {spoke}}
            ways.append(_Way(name, (hub, spoke), beyond))
    return ways


def _connectors(
    testbed: str, ways: Iterable[_Way], cut: Mapping[str, Members], portals: int, taken: set[str]
) -> Iterator[Connector]:
    """The connectors of one piece, by peer in the order in which they are first needed."""
    by_peer: dict[str, list[Crossing]] = defaultdict(list)
    for way in ways:
        if testbed not in way.ends:
            continue
        peer = way.ends[1] if way.ends[0] == testbed else way.ends[0]
        far = [
            (computer.name, interface.ip4)
            for other, members in cut[way.substrate].items()
            if other in way.beyond[testbed]
            for computer, interface in members
        ]
        names, addresses = tuple(name for name, _ip in far), tuple(ip for _name, ip in far if ip)
        by_peer[peer].append(Crossing(way.substrate, names, addresses))
    for peer, crossings in by_peer.items():
        number = min(portals, len(crossings))
        for index in range(number):
            yield Connector(_name(peer, index, taken), peer, tuple(crossings[index::number]))


def _name(peer: str, index: int, taken: set[str]) -> str:
    """`<remote-testbed>tunnel<N>`, with N the first that no computer is called."""
    base = "".join(c if c.isalnum() else "-" for c in peer)
    while f"{base}tunnel{index}" in taken:
        index += 1
    name = f"{base}tunnel{index}"
    taken.add(name)
    return name
