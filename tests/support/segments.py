"""Pieces of experiments to test with."""

from __future__ import annotations

from typing import Any

from federation_member.orders.model import NewOrder, OrderType
from fedkit.protocol.segments import ConnectorSpec, CrossingSpec, Host, SegmentSpec
from fedkit.topology import topdl
from fedkit.topology.model import Attribute, Computer, Interface, Substrate, Topology

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFZ3vXvM5Yy0m2mD0Yc0v9u0m6J7s7n0wq0m2mD0Yc0v"


def wired(*wires: tuple[str, ...], **attributes: dict[str, str]) -> Topology:
    """Computers on wires (10.1.1.0/24, 10.1.2.0/24, …); `attributes` of computers by name."""
    computers: dict[str, list[Interface]] = {}
    for number, members in enumerate(wires, 1):
        for host, name in enumerate(members, 2):
            said = (Attribute("ip4_address", f"10.1.{number}.{host}"), Attribute("ip4_netmask", "255.255.255.0"))
            interfaces = computers.setdefault(name, [])
            interfaces.append(Interface(f"inf{len(interfaces)}", (f"wire{number}",), attributes=said))
    elements = tuple(
        Computer(name=name, interfaces=tuple(found)).with_attributes(attributes.get(name, {}))
        for name, found in computers.items()
    )
    return Topology(substrates=tuple(Substrate(f"wire{n}") for n in range(1, len(wires) + 1)), elements=elements)


def piece(*wires: tuple[str, ...], **changes: Any) -> SegmentSpec:
    """A segment of computers on wires; `nodes` are attributes of computers."""
    topology = wired(*wires, **changes.pop("nodes", {}))
    description = topdl.write(topology).decode()
    if "hosts" not in changes:
        changes["hosts"] = [
            Host(ip4=str(interface.ip4), names=[computer.name])
            for computer in topology.computers
            for interface in computer.interfaces
        ]
    return SegmentSpec(testbed="here", description=description, **changes)


def connector(*wires: str, active: bool, name: str = "fartunnel0") -> ConnectorSpec:
    """A portal that carries these wires."""
    crossings = [CrossingSpec(substrate=wire, tag=tag) for tag, wire in enumerate(wires, 10)]
    return ConnectorSpec(name=name, peer="far", active=active, crossings=crossings)


def ordered(spec: SegmentSpec, **changes: Any) -> NewOrder:
    """An order of a segment, which nobody but the member itself can make."""
    spelled = NewOrder(spec={"kind": "network", "cidr": "10.0.0.0/24"}, type=OrderType.ONE_TIME, **changes)  # type: ignore[arg-type]
    return spelled.model_copy(update={"spec": spec})
