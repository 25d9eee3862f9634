"""Numbers a topology that came without addresses, or with some: every interface of a computer gets one (see `addresses`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fedkit.topology import addresses
from fedkit.topology.model import Attribute, Computer, Interface, Topology
from fedkit.topology.tcl_order import TclTable


def numbered(topology: Topology) -> Topology:
    """The topology with an address on every interface of a computer; those given are kept.

    Raises `addresses.BadAddress` where the given ones clash.
    """
    table = TclTable()
    for substrate in topology.substrates:
        table.add(substrate.name)
    wires = []
    for name in table:
        interfaces = [interface for _element, interface in topology.ends[name]]
        netmask = next((i.netmask for i in interfaces if i.netmask), addresses.DEFAULT_NETMASK)
        wires.append(addresses.Wire(name, [interface.ip4 for interface in interfaces], netmask))
    found = addresses.number(wires)
    masks = {wire.name: wire.netmask for wire in wires}
    left = {name: iter(given) for name, given in found.items()}
    elements = []
    for element in topology.elements:
        told = tuple(_told(interface, left, masks, isinstance(element, Computer)) for interface in element.interfaces)
        elements.append(replace(element, interfaces=told))
    addresses.check_unique(
        (interface.ip4, f"{element.name} on {', '.join(interface.substrates)}")
        for element in elements
        if isinstance(element, Computer)
        for interface in element.interfaces
        if interface.ip4
    )
    return replace(topology, elements=tuple(elements))


def _told(interface: Interface, left: dict[str, Iterator[str]], masks: dict[str, str], is_computer: bool) -> Interface:
    """An interface with the address of its first substrate, unless it has one or is no computer's."""
    dealt = [next(left[name]) for name in interface.substrates]
    if not is_computer or interface.ip4:
        return interface
    said = (Attribute("ip4_address", dealt[0]), Attribute("ip4_netmask", masks[interface.substrates[0]]))
    kept = tuple(a for a in interface.attributes if a.name != "ip4_netmask")
    return replace(interface, attributes=(*kept, *said))
