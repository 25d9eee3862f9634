"""From what a program has made to a topology: addresses, names of attributes as fedd writes them, services.

Per node an `os` with osid, the attributes type, fixed, startup, testbed, failureaction, software from tar files and rpms; per interface
its rate, half of the link's delay, loss, address and netmask. A substrate's latency is that of one hop, so half of the link's delay,
as topdl has it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedkit.topology import addresses
from fedkit.topology.model import (
    Attribute,
    Attributes,
    Capacity,
    Computer,
    Interface,
    Latency,
    OperatingSystem,
    Service,
    Software,
    Substrate,
    Topology,
)
from fedkit.topology.ns2 import units
from fedkit.topology.ns2.objects import QUEUE_DEFAULTS, Member, Node, Passive, Way, Wire
from fedkit.topology.ns2.program import Program


def build(program: Program, services: Iterable[Service], options: dict[str, str]) -> Topology:
    """Number the addresses and make the topology; raises `addresses.BadAddress`."""
    _number(program)
    attributes = [Attribute(name, value) for name, value in program.settings]
    attributes += [Attribute(f"opt:{name}", value) for name, value in options.items()]
    attributes += [
        Attribute("event", f"{event.time:.15g} {program.readable(event.command)}") for event in program.events
    ]
    attributes += [_passive(program, thing) for thing in program.passives]
    return Topology(
        substrates=tuple(_substrate(wire) for wire in program.wires),
        elements=tuple(_computer(program, node) for node in program.nodes),
        attributes=tuple(attributes),
        services=tuple(services),
        routing=program.routing,
    )


def _number(program: Program) -> None:
    ordered = [wire for name in program.order if isinstance(wire := program.by_name[name], Wire)]
    numbered = addresses.number(
        addresses.Wire(wire.name, [member.ip for member in wire.members], wire.netmask) for wire in ordered
    )
    for wire in ordered:
        for member, ip in zip(wire.members, numbered[wire.name], strict=True):
            member.ip = ip
    addresses.check_unique(
        (ip, f"{member.node.name} on {wire.name}")
        for wire in ordered
        for member in wire.members
        for ip in (member.ip or "", *member.aliases)
    )


def _substrate(wire: Wire) -> Substrate:
    attributes = [Attribute(name, value) for name, value in wire.extra]
    if wire.kind == "lan" and len(wire.members) == 2:
        attributes.append(Attribute("kind", "lan"))
    return Substrate(wire.name, _capacity(wire.rate), _latency(wire.delay / 2), (*attributes, *_unshaped(wire.rate)))


def _capacity(rate: int) -> Capacity | None:
    return Capacity(float(rate)) if rate > 0 else None


def _latency(delay: float) -> Latency | None:
    return Latency(float(delay)) if delay > 0 else None


def _unshaped(rate: int) -> Attributes:
    """`*` and `~` are no rates, and must not be lost."""
    return {units.ANY: (Attribute("bandwidth", "*"),), units.BEST_EFFORT: (Attribute("bandwidth", "~"),)}.get(rate, ())


def _computer(program: Program, node: Node) -> Computer:
    said: list[tuple[str, str | None]] = [
        ("type", node.hardware),
        ("fixed", node.fixed),
        ("startup", node.startup),
        ("testbed", node.testbed),
        ("failureaction", node.failure_action or program.failure_action),
        *node.extra,
        *(("route", f"{destination} {hop}") for destination, hop in node.routes),
    ]
    software = [Software(location, install) for install, location in node.tarfiles]
    software += [Software(location) for location in node.rpms]
    return Computer(
        name=node.name,
        os=(OperatingSystem(attributes=(Attribute("osid", node.os),)),) if node.os else (),
        software=tuple(software),
        interfaces=tuple(_interface(number, member) for number, member in enumerate(node.ports)),
        attributes=tuple(Attribute(name, value) for name, value in said if value is not None),
    )


def _interface(number: int, member: Member) -> Interface:
    to, back, wire = member.to, member.back, member.wire
    attributes: list[Attribute] = []
    if to == back and to.loss:
        attributes.append(Attribute("loss", f"{to.loss:.15g}"))
    if to != back:
        attributes += [*_one_way("to", to), *_one_way("from", back)]
    attributes += _unshaped(to.rate)
    assert member.ip is not None
    attributes += [Attribute("ip4_address", member.ip), Attribute("ip4_netmask", wire.netmask)]
    attributes += [Attribute("ip4_alias", alias) for alias in member.aliases]
    attributes += _queue(member)
    return Interface(f"inf{number:03d}", (wire.name,), _capacity(to.rate), _latency(to.delay), tuple(attributes))


def _one_way(name: str, way: Way) -> Attributes:
    """Where the two directions differ, each is told: delay in ms, rate in kb/s, loss."""
    return (
        Attribute(f"{name}_delay", f"{way.delay:.15g}"),
        Attribute(f"{name}_rate", str(way.rate)),
        Attribute(f"{name}_loss", f"{way.loss:.15g}"),
    )


def _queue(member: Member) -> list[Attribute]:
    queue = member.queue
    if queue is None:
        return []
    changed = {name: value for name, value in queue.values.items() if QUEUE_DEFAULTS.get(name) != value}
    said = [] if queue.type == "DropTail" else [Attribute("queue", queue.type)]
    return said + [Attribute(f"queue:{name}", value) for name, value in changed.items()]


def _passive(program: Program, thing: Passive) -> Attribute:
    """An agent, application or event list, as one line: its class and name, its node, then what was said of it."""
    said = [thing.kind, thing.name]
    if thing.node is not None:
        said.append(f"node={thing.node.name}")
    said += [f"{name}={program.readable(value)}" for name, value in (thing.options | thing.values).items()]
    said += thing.members
    return Attribute("agent", "\n".join(said))
