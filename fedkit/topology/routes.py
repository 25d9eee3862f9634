"""Static routes: which neighbour every computer sends to, so that each reaches every other over the whole topology.

A piece alone cannot know them, so they are computed before the description is split and travel with each piece:

    a ──10.1.1──► b ──10.1.2──► c          a: 10.1.2.0/24 via b        c: 10.1.1.0/24 via b

Shortest paths over substrates, by breadth-first search from every computer: O(computers x interfaces). Of equally short ones it
is the first in the order of the file, so the same description has the same routes. Every computer forwards.

`Manual` routes are those that the description gives its computers (`$a add-route $c $b`, attribute `route`), and no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface

from fedkit.topology.errors import UnusableRoute
from fedkit.topology.model import Computer, Topology

STATIC, MANUAL = "Static", "Manual"
ROUTE = "route"  # attribute of a computer: a destination and a neighbour, by their names
DYNAMIC = frozenset({"Session", "ospf"})  # daemons find the ways, where there are any; else they are static


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
    """For every computer a route to each subnet that it is not on itself; or those that it is given, or none, as `routing` says.

    Interfaces without an address take part in nothing. What cannot be reached has no route.
    """
    if topology.routing is None:
        return {}
    ends = list(_ends(topology))
    by_computer: dict[str, list[_End]] = {}
    by_substrate: dict[str, list[_End]] = {}
    for end in ends:
        by_computer.setdefault(end.computer, []).append(end)
        by_substrate.setdefault(end.substrate, []).append(end)
    if topology.routing == MANUAL:
        return _given(topology, by_computer, by_substrate)
    return {computer: tuple(_routes(computer, by_computer, by_substrate)) for computer in by_computer}


def check_given(topology: Topology) -> None:
    """Raise `UnusableRoute` for a route of `Manual` routing that leads nowhere, or over somebody who is no neighbour."""
    if topology.routing != MANUAL:
        return
    on = {
        computer.name: {name for i in computer.interfaces for name in i.substrates} for computer in topology.computers
    }
    for computer in topology.computers:
        for target, hop in _said(computer):
            if target not in on and target not in topology.ends:
                raise UnusableRoute(f"{computer.name} has a route to {target[:80]!r}, which is no node, link or LAN.")
            if not on[computer.name] & on.get(hop, set()):
                raise UnusableRoute(
                    f"{computer.name} has a route to {target} over {hop[:80]!r}, which is no neighbour of its."
                )


def _said(computer: Computer) -> Iterator[tuple[str, str]]:
    """Where a computer's own routes lead, and over whom."""
    for attribute in computer.attributes:
        if attribute.name == ROUTE:
            target, _, hop = attribute.value.partition(" ")
            yield target, hop


def _given(
    topology: Topology, by_computer: Mapping[str, list[_End]], by_substrate: Mapping[str, list[_End]]
) -> dict[str, tuple[NextHop, ...]]:
    """To the network of a link or LAN, or to each address of a node; what is not in this part of a topology has none."""
    found: dict[str, dict[str, NextHop]] = {}
    for computer in topology.computers:
        own = {end.substrate: end.network for end in by_computer.get(computer.name, ())}
        for target, hop in _said(computer):
            via = next((end.ip for end in by_computer.get(hop, ()) if end.substrate in own), None)
            to = [f"{end.ip}/32" for end in by_computer.get(target, ())] or [
                e.network for e in by_substrate.get(target, ())
            ]
            for destination in to if via is not None else ():
                if destination not in own.values():
                    found.setdefault(computer.name, {})[destination] = NextHop(destination, str(via))
    return {name: tuple(hops.values()) for name, hops in found.items()}


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
