"""Static routes: which neighbour every computer sends to, so that each reaches every other over the whole topology.

A piece alone cannot know them, so they are computed before the description is split and travel with each piece:

    a ──10.1.1──► b ──10.1.2──► c          a: 10.1.2.0/24 via b        c: 10.1.1.0/24 via b

Shortest paths over substrates, by breadth-first search from every computer: O(computers x interfaces). Of equally short ones it
is the first in the order of the file, so the same description has the same routes. Every computer forwards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface

from fedkit.topology.model import Topology

STATIC, MANUAL = "Static", "Manual"
DYNAMIC = frozenset({"Session", "ospf"})  # daemons find the ways, where there are any; else they are static
WITHOUT = frozenset({None, MANUAL})  # what the description may say of routing for no routes to be made


@dataclass(frozen=True)
class NextHop:
    """Where packets for a subnet go: to the address of a neighbour."""

    destination: str
    via: str


@dataclass(frozen=True, slots=True)
class _End:
    computer: str
    substrate: str
    ip: str
    network: str


def routes_of(topology: Topology) -> Mapping[str, tuple[NextHop, ...]]:
    """For every computer a route to each subnet that it is not on itself; none at all if `routing` asks for none.

    Interfaces without an address take part in nothing. What cannot be reached has no route.
    """
    if topology.routing in WITHOUT:
        return {}
    ends = list(_ends(topology))
    by_computer: dict[str, list[_End]] = {}
    by_substrate: dict[str, list[_End]] = {}
    for end in ends:
        by_computer.setdefault(end.computer, []).append(end)
        by_substrate.setdefault(end.substrate, []).append(end)
    return {computer: tuple(_routes(computer, by_computer, by_substrate)) for computer in by_computer}


def _ends(topology: Topology) -> Iterator[_End]:
    for computer in topology.computers:
        for interface in computer.interfaces:
            if interface.ip4 and interface.netmask:
                address = IPv4Interface(f"{interface.ip4}/{interface.netmask}")
                ip, network = str(address.ip), str(address.network)
                yield from (_End(computer.name, substrate, ip, network) for substrate in interface.substrates)


def _routes(
    source: str, by_computer: Mapping[str, list[_End]], by_substrate: Mapping[str, list[_End]]
) -> Iterator[NextHop]:
    told = {end.network for end in by_computer[source]}
    hops: dict[str, str | None] = {source: None}
    seen: set[str] = set()
    waiting = deque([source])
    while waiting:
        here = waiting.popleft()
        via = hops[here]
        for end in by_computer[here]:
            if via is not None and end.network not in told:
                told.add(end.network)
                yield NextHop(end.network, via)
            if end.substrate in seen:
                continue
            seen.add(end.substrate)
            for far in by_substrate[end.substrate]:
                if far.computer not in hops:
                    hops[far.computer] = via or far.ip
                    waiting.append(far.computer)
