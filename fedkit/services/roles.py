"""Nodes that services add to an experiment: each is like the first of its testbed, and says in an attribute what it is for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from fedkit.topology.model import Attribute, Computer, Interface, Substrate, Topology, unnamed_interfaces_named

ROLE = "federation:role"
_LIKE = ("type", "testbed")
_WIDE = 250  # members from which on a LAN needs more than 8 bits


def is_ours(computer: Computer) -> bool:
    """Whether a service added it."""
    return computer.get(ROLE) is not None


def with_role(topology: Topology, role: str, testbeds: Iterable[str]) -> Iterator[Computer]:
    """The nodes of that role at these testbeds."""
    wanted = set(testbeds)
    return (c for c in topology.computers if c.get(ROLE) == role and c.testbed in wanted)


def with_node(topology: Topology, base: str, testbed: str, role: str) -> tuple[Topology, Computer]:
    """The topology with another node at `testbed`, called `base` or, if somebody is, `base1`, `base2`, …"""
    taken = {computer.name for computer in topology.computers}
    name = next(name for number in range(len(taken) + 1) if (name := f"{base}{number or ''}") not in taken)
    model = next(computer for computer in topology.computers if computer.testbed == testbed)
    attributes = (*(a for a in model.attributes if a.name in _LIKE), Attribute(ROLE, role))
    node = Computer(name=name, os=model.os, attributes=attributes)
    return replace(topology, elements=(*topology.elements, node)), node


def with_lan(topology: Topology, base: str, members: Iterable[Computer]) -> tuple[Topology, str]:
    """The topology with another LAN, whose members' last interfaces are on it; no member's other wires change."""
    names = {computer.name for computer in members}
    taken = {substrate.name for substrate in topology.substrates}
    name = next(name for number in range(len(taken) + 1) if (name := f"{base}{number or ''}") not in taken)
    mask = (Attribute("ip4_netmask", "255.255.0.0"),) if len(names) > _WIDE else ()
    end = Interface("", (name,), attributes=mask)
    elements = tuple(
        replace(element, interfaces=unnamed_interfaces_named((*element.interfaces, end)))
        if isinstance(element, Computer) and element.name in names
        else element
        for element in topology.elements
    )
    lan = Substrate(name, attributes=(Attribute("kind", "lan"), Attribute(ROLE, "control")))
    return replace(topology, elements=elements, substrates=(*topology.substrates, lan)), name


def users_own(topology: Topology) -> Topology:
    """The topology without what services added: what it looked like to whoever described it, and what routes may lead over."""
    ours = {substrate.name for substrate in topology.substrates if substrate.get(ROLE) is not None}
    if not ours:
        return topology
    elements = tuple(
        replace(element, interfaces=tuple(i for i in element.interfaces if not ours.issuperset(i.substrates)))
        for element in topology.elements
        if not (isinstance(element, Computer) and is_ours(element))
    )
    kept = tuple(substrate for substrate in topology.substrates if substrate.name not in ours)
    return replace(topology, elements=elements, substrates=kept)


def address_on(computer: Computer, substrate: str) -> str:
    """Its address there; empty if it is not there."""
    return next((i.ip4 or "" for i in computer.interfaces if substrate in i.substrates), "")
