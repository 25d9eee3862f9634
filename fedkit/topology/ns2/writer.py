"""Writes a topology as an ns2 program that, read again, gives the same.

Rates are in kb, delays in ms with one decimal, as fedd wrote them. What is neither a command nor an attribute of ns2 is passed on by
`tb-add-node-attribute`. `x-3` becomes the array element `x(3)` again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fedkit.topology.model import Computer, Interface, Substrate, Topology
from fedkit.topology.ns2 import tb_commands
from fedkit.topology.ns2.agent_writer import agent_lines
from fedkit.topology.ns2.words import reference, variable, word
from fedkit.topology.services import write_service

_OWN = {"type", "fixed", "startup", "testbed", "failureaction", "route"}  # a node's attributes with a command each
_NOTED = ("console", "add-desire", "topography")
_DEFAULT_RATE = 100_000.0  # kb/s


def write(topology: Topology, *, as_piece: bool = False) -> str:
    """The whole program.

    `as_piece` writes what one testbed is given: the testbed is told in a comment only, and what each member of a LAN does to
    frames is told in full (D41, D42).
    """
    lines = ["set ns [new Simulator]", "source tb_compat.tcl", ""]
    lines += [f"# SERVICE: {write_service(service)}" for service in topology.services]
    for computer in topology.computers:
        told = _computer(computer)
        lines += ["", *(map(_told_in_comment, told) if as_piece else told)]
    for substrate in topology.substrates:
        ends = [(e, i) for e, i in topology.ends[substrate.name] if isinstance(e, Computer)]
        if len(ends) > 1:
            lines += ["", *_wire(topology, substrate, ends, in_full=as_piece)]
    routes = [line for computer in topology.computers for line in _routes(topology, computer)]
    lines += ["", *routes, *_settings(topology), *agent_lines(topology)]
    if topology.routing:
        lines.append(f"$ns rtproto {topology.routing}")
    return "\n".join([*lines, "$ns run", ""])


def _told_in_comment(line: str) -> str:
    """What concerns the federation alone, and would mean nothing to a testbed."""
    is_ours = line.startswith("tb-set-node-testbed ") or " federation:" in line
    return f"# {line}" if is_ours else line


def _computer(computer: Computer) -> Iterator[str]:
    node = reference(computer.name)
    yield f"set {variable(computer.name)} [$ns node]"
    if computer.hardware:
        yield f"tb-set-hardware {node} {word(computer.hardware)}"
    if computer.osid:
        yield f"tb-set-node-os {node} {word(computer.osid)}"
    tarfiles = [f"{word(s.install)} {word(s.location)}" for s in computer.software if s.install is not None]
    if tarfiles:
        yield f"tb-set-node-tarfiles {node} {' '.join(tarfiles)}"
    rpms = [word(s.location) for s in computer.software if s.install is None]
    if rpms:
        yield f"tb-set-node-rpms {node} {' '.join(rpms)}"
    for command, value in (
        ("tb-fix-node", computer.get("fixed")),
        ("tb-set-node-testbed", computer.testbed),
        ("tb-set-node-startcmd", computer.startup),
        ("tb-set-node-failure-action", computer.get("failureaction")),
    ):
        if value is not None:
            yield f"{command} {node} {word(value)}"
    for attribute in computer.attributes:
        if attribute.name in _OWN:
            continue
        noted = attribute.name.removeprefix("ns:")
        if attribute.name == "tb-set-node-os-parent":
            yield f"tb-set-node-os {node} {word(computer.osid or '')} {word(attribute.value)}"
        elif attribute.name in tb_commands.NAMES:
            yield f"{attribute.name} {node} {attribute.value}".rstrip()
        elif noted in _NOTED and noted != attribute.name:
            yield f"{node} {noted} {attribute.value}".rstrip()
        else:
            yield f"tb-add-node-attribute {node} {word(attribute.name)} {word(attribute.value)}"


def _wire(
    topology: Topology, substrate: Substrate, ends: list[tuple[Computer, Interface]], *, in_full: bool
) -> Iterator[str]:
    kind = topology.kind_of(substrate)
    rate = (
        substrate.get("bandwidth") or f"{_figure(substrate.capacity.rate if substrate.capacity else _DEFAULT_RATE)}kb"
    )
    delay = 2 * substrate.latency.time if substrate.latency else 0.0
    wire = reference(substrate.name)
    if kind == "link":
        nodes = " ".join(reference(computer.name) for computer, _ in ends)
        queue = next((i.get("queue") for _, i in ends if i.get("queue")), None) or "DropTail"
        yield f"set {variable(substrate.name)} [$ns duplex-link {nodes} {rate} {delay:.1f}ms {queue}]"
    else:
        members = " ".join(reference(computer.name) for computer, _ in ends)
        yield f'set {variable(substrate.name)} [$ns make-lan "{members}" {rate} {delay:.1f}ms]'
    netmask = next((i.netmask for _, i in ends if i.netmask), None)
    if netmask not in (None, "255.255.255.0"):
        yield f"tb-set-netmask {wire} {netmask}"
    for computer, interface in ends:
        if interface.ip4:
            yield f"tb-set-ip-{kind} {reference(computer.name)} {wire} {interface.ip4}"
        for attribute in interface.attributes:
            if attribute.name == "ip4_alias":
                yield f"tb-add-ip-alias-{kind} {reference(computer.name)} {wire} {attribute.value}"
    yield from _link_sides(wire, substrate, ends) if kind == "link" else _lan_sides(wire, substrate, ends, in_full)
    yield from _queues(kind, wire, ends)
    for attribute in substrate.attributes:
        if attribute.name == "failureaction":
            yield f"tb-set-link-failure-action {wire} {attribute.value}"
        elif attribute.name in tb_commands.NAMES:
            yield f"{attribute.name} {wire} {attribute.value}".rstrip()


def _lan_sides(
    wire: str, substrate: Substrate, ends: Iterable[tuple[Computer, Interface]], in_full: bool
) -> Iterator[str]:
    """What each member does to frames, where it is not what the LAN as a whole does, or of all of them."""
    whole = (*_hop(substrate), 0.0)
    for computer, interface in ends:
        to, back = _side(interface, "to"), _side(interface, "from")
        if (in_full or (to, back) != (whole, whole)) and not interface.get("bandwidth"):
            yield f"tb-set-lan-simplex-params {wire} {reference(computer.name)} {_way(*to)} {_way(*back)}"


def _link_sides(wire: str, substrate: Substrate, ends: list[tuple[Computer, Interface]]) -> Iterator[str]:
    """Each direction of a link whose loss, rate or delay was set apart; half of it stands on either end."""
    (one, first), (_other, second) = ends
    there, back = _side(first, "to"), _side(second, "to")
    if there == back and there[:2] == _hop(substrate):
        if there[2]:
            yield f"tb-set-link-loss {wire} {_both(there[2])}"
    elif not first.get("bandwidth"):
        for computer, (delay, rate, loss) in ((one, there), (_other, back)):
            yield (
                f"tb-set-link-simplex-params {wire} {reference(computer.name)} "
                f"{2 * delay:.1f}ms {_figure(rate)}kb {_both(loss)}"
            )


def _queues(kind: str, wire: str, ends: list[tuple[Computer, Interface]]) -> Iterator[str]:
    """What was set on each end's queue. Of parallel links, `$ns link` means the first."""
    for number, (computer, interface) in enumerate(ends):
        here, other = reference(computer.name), reference(ends[number - 1][0].name)
        way = f"link {here} {other}" if kind == "link" else f"lanlink {wire} {here}"
        for attribute in interface.attributes:
            if attribute.name.startswith("queue:"):
                name = attribute.name.removeprefix("queue:")
                yield f"[[$ns {way}] queue] set {word(name)} {word(attribute.value)}"


def _hop(substrate: Substrate) -> tuple[float, float]:
    """Delay in ms and rate in kb/s of one hop, where nothing else is said."""
    return (
        substrate.latency.time if substrate.latency else 0.0,
        substrate.capacity.rate if substrate.capacity else 0.0,
    )


def _side(interface: Interface, way: str) -> tuple[float, float, float]:
    """Delay in ms, rate in kb/s and loss of one direction at an interface."""
    delay, rate, loss = (interface.get(f"{way}_{what}") for what in ("delay", "rate", "loss"))
    if delay is None or rate is None or loss is None:
        hop = interface.latency.time if interface.latency else 0.0
        return hop, interface.capacity.rate if interface.capacity else 0.0, interface.loss
    return float(delay), float(rate), float(loss)


def _way(delay: float, rate: float, loss: float) -> str:
    return f"{delay:.1f}ms {_figure(rate)}kb {_figure(loss)}"


def _both(loss: float) -> str:
    """The loss of two halves that each lose `loss`."""
    return _figure(1 - (1 - loss) ** 2)


def _routes(topology: Topology, computer: Computer) -> Iterator[str]:
    for attribute in computer.attributes:
        if attribute.name == "route":
            destination, _, hop = attribute.value.partition(" ")
            yield f"{reference(computer.name)} add-route {reference(destination)} {reference(hop)}"


def _settings(topology: Topology) -> Iterator[str]:
    for attribute in topology.attributes:
        if attribute.name in tb_commands.NAMES:
            yield f"{attribute.name} {attribute.value}".rstrip()
        elif attribute.name.startswith("opt:"):
            yield f"set opt({attribute.name.removeprefix('opt:')}) {word(attribute.value)}"
        elif attribute.name in ("ns:make-portinvlan", "ns:make-path"):
            yield f"$ns {attribute.name.removeprefix('ns:')} {attribute.value}".rstrip()
        elif attribute.name == "event":
            time, _, command = attribute.value.partition(" ")
            yield f"$ns at {time} {word(command)}"


def _figure(value: float) -> str:
    return f"{value:.15g}"
