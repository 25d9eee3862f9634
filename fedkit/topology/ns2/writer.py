"""Writes a topology as an ns2 program that, read again, gives the same.

Rates are in kb, delays in ms with one decimal, as fedd wrote them. What is neither a command nor an attribute of ns2 is passed on by
`tb-add-node-attribute`. `x-3` becomes the array element `x(3)` again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from fedkit.topology.model import Computer, Interface, Substrate, Topology
from fedkit.topology.ns2 import tb_commands
from fedkit.topology.services import write_service

_ELEMENT = re.compile(r"([A-Za-z][A-Za-z0-9]*)-([0-9]+)\Z")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+\Z")
_OWN = {"type", "fixed", "startup", "testbed", "failureaction", "route"}  # a node's attributes with a command each
_NOTED = ("console", "add-desire", "topography")
_DEFAULT_RATE = 100_000.0  # kb/s


def write(topology: Topology) -> str:
    """The whole program."""
    lines = ["set ns [new Simulator]", "source tb_compat.tcl", ""]
    lines += [f"# SERVICE: {write_service(service)}" for service in topology.services]
    for computer in topology.computers:
        lines += ["", *_computer(computer)]
    for substrate in topology.substrates:
        ends = [(e, i) for e, i in topology.ends[substrate.name] if isinstance(e, Computer)]
        if len(ends) > 1:
            lines += ["", *_wire(topology, substrate, ends)]
    routes = [line for computer in topology.computers for line in _routes(topology, computer)]
    lines += ["", *routes, *_settings(topology)]
    if topology.routing:
        lines.append(f"$ns rtproto {topology.routing}")
    return "\n".join([*lines, "$ns run", ""])


def _computer(computer: Computer) -> Iterator[str]:
    node = _reference(computer.name)
    yield f"set {_variable(computer.name)} [$ns node]"
    if computer.hardware:
        yield f"tb-set-hardware {node} {_word(computer.hardware)}"
    if computer.osid:
        yield f"tb-set-node-os {node} {_word(computer.osid)}"
    tarfiles = [f"{_word(s.install)} {_word(s.location)}" for s in computer.software if s.install is not None]
    if tarfiles:
        yield f"tb-set-node-tarfiles {node} {' '.join(tarfiles)}"
    rpms = [_word(s.location) for s in computer.software if s.install is None]
    if rpms:
        yield f"tb-set-node-rpms {node} {' '.join(rpms)}"
    for command, value in (
        ("tb-fix-node", computer.get("fixed")),
        ("tb-set-node-testbed", computer.testbed),
        ("tb-set-node-startcmd", computer.startup),
        ("tb-set-node-failure-action", computer.get("failureaction")),
    ):
        if value is not None:
            yield f"{command} {node} {_word(value)}"
    for attribute in computer.attributes:
        if attribute.name in _OWN:
            continue
        noted = attribute.name.removeprefix("ns:")
        if attribute.name == "tb-set-node-os-parent":
            yield f"tb-set-node-os {node} {_word(computer.osid or '')} {_word(attribute.value)}"
        elif attribute.name in tb_commands.names():
            yield f"{attribute.name} {node} {attribute.value}".rstrip()
        elif noted in _NOTED and noted != attribute.name:
            yield f"{node} {noted} {attribute.value}".rstrip()
        else:
            yield f"tb-add-node-attribute {node} {_word(attribute.name)} {_word(attribute.value)}"


def _wire(topology: Topology, substrate: Substrate, ends: list[tuple[Computer, Interface]]) -> Iterator[str]:
    kind = topology.kind_of(substrate)
    rate = (
        substrate.get("bandwidth") or f"{_figure(substrate.capacity.rate if substrate.capacity else _DEFAULT_RATE)}kb"
    )
    delay = 2 * substrate.latency.time if substrate.latency else 0.0
    wire = _reference(substrate.name)
    if kind == "link":
        nodes = " ".join(_reference(computer.name) for computer, _ in ends)
        queue = next((i.get("queue") for _, i in ends if i.get("queue")), None) or "DropTail"
        yield f"set {_variable(substrate.name)} [$ns duplex-link {nodes} {rate} {delay:.1f}ms {queue}]"
    else:
        members = " ".join(_reference(computer.name) for computer, _ in ends)
        yield f'set {_variable(substrate.name)} [$ns make-lan "{members}" {rate} {delay:.1f}ms]'
    netmask = next((i.netmask for _, i in ends if i.netmask), None)
    if netmask not in (None, "255.255.255.0"):
        yield f"tb-set-netmask {wire} {netmask}"
    for computer, interface in ends:
        if interface.ip4:
            yield f"tb-set-ip-{kind} {_reference(computer.name)} {wire} {interface.ip4}"
        for attribute in interface.attributes:
            if attribute.name == "ip4_alias":
                yield f"tb-add-ip-alias-{kind} {_reference(computer.name)} {wire} {attribute.value}"
    yield from (_link_sides(wire, ends) if kind == "link" else _lan_sides(wire, substrate, ends))
    for attribute in substrate.attributes:
        if attribute.name == "failureaction":
            yield f"tb-set-link-failure-action {wire} {attribute.value}"
        elif attribute.name in tb_commands.names():
            yield f"{attribute.name} {wire} {attribute.value}".rstrip()


def _lan_sides(wire: str, substrate: Substrate, ends: Iterable[tuple[Computer, Interface]]) -> Iterator[str]:
    """What each member does to frames, where it is not what the LAN as a whole does."""
    hop = substrate.latency.time if substrate.latency else 0.0
    whole = substrate.capacity.rate if substrate.capacity else 0.0
    for computer, interface in ends:
        to, back = _side(interface, "to"), _side(interface, "from")
        if (to, back) != ((hop, whole, 0.0), (hop, whole, 0.0)) and not interface.get("bandwidth"):
            yield f"tb-set-lan-simplex-params {wire} {_reference(computer.name)} {_way(*to)} {_way(*back)}"


def _link_sides(wire: str, ends: list[tuple[Computer, Interface]]) -> Iterator[str]:
    """Each direction of a link whose loss, rate or delay was set apart; half of it stands on either end."""
    (one, first), (_other, second) = ends
    there, back = _side(first, "to"), _side(second, "to")
    if there == back and there[2]:
        yield f"tb-set-link-loss {wire} {_both(there[2])}"
    elif there != back:
        for computer, (delay, rate, loss) in ((one, there), (_other, back)):
            yield (
                f"tb-set-link-simplex-params {wire} {_reference(computer.name)} "
                f"{2 * delay:.1f}ms {_figure(rate)}kb {_both(loss)}"
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
            yield f"{_reference(computer.name)} add-route {_reference(destination)} {_reference(hop)}"


def _settings(topology: Topology) -> Iterator[str]:
    for attribute in topology.attributes:
        if attribute.name in tb_commands.names():
            yield f"{attribute.name} {attribute.value}".rstrip()
        elif attribute.name.startswith("opt:"):
            yield f"set opt({attribute.name.removeprefix('opt:')}) {_word(attribute.value)}"
        elif attribute.name == "event":
            time, _, command = attribute.value.partition(" ")
            yield f"$ns at {time} {_word(command)}"


def _variable(name: str) -> str:
    match = _ELEMENT.match(name)
    return f"{match[1]}({match[2]})" if match else name


def _reference(name: str) -> str:
    """How a program means an object: `$a`, `$n(3)`, or `${a-b}` where the name has other characters."""
    variable = _variable(name)
    return f"${variable}" if re.fullmatch(r"[A-Za-z0-9]+(\([0-9]+\))?", variable) else f"${{{variable}}}"


def _word(text: str) -> str:
    """One word of Tcl that means exactly `text`."""
    if _PLAIN.match(text):
        return text
    return '"' + re.sub(r'([\\"$\[\]{};])', r"\\\1", text).replace("\n", "\\n") + '"'


def _figure(value: float) -> str:
    return f"{value:.15g}"
