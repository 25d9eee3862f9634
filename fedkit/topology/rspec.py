"""GENI RSpec version 3 requests, as ProtoGENI and its clients write them: read and written.

    node        ◄─► computer      component_manager_id: testbed, hardware_type: type, disk_image: osid, component_id: fixed
    install, execute ◄─► software with a place to unpack it, start command
    link        ◄─► substrate     link_type `lan` says that it is one
    interface   ◄─► interface     `ip` is its address
    property    ◄─► rate (kb/s), delay (ms) and loss from one interface to another

A testbed's name is the authority of its component manager: `name/subname` is `urn:publicid:IDN+name:subname+authority+cm`. What
RSpec has no place for (services, routing, failure actions, program agents) is carried as an attribute in our own namespace, where it
belongs to a computer, and else left out: use topdl or ns2. What a request says beyond this is told in a warning.

Source: the schema http://www.geni.net/resources/rspec/3/request.xsd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations

from lxml import etree

from fedkit.topology.errors import BadDescription, Problem
from fedkit.topology.model import (
    Attribute,
    Computer,
    Described,
    Interface,
    OperatingSystem,
    Software,
    Substrate,
    Topology,
)
from fedkit.topology.ways import Way, told_of_ends, way_between
from fedkit.topology.xml import parse

RSPEC = "http://www.geni.net/resources/rspec/3"
OURS = "urn:fedmesh:rspec"  # attributes of computers that RSpec has no place for
XSI = "http://www.w3.org/2001/XMLSchema-instance"
SCHEMA = f"{RSPEC} {RSPEC}/request.xsd"
IMAGE = "urn:publicid:IDN+emulab.net+image+emulab-ops//"
PROBLEMS_LIMIT = 100
ALL_PAIRS = 12  # members of a LAN up to which every pair is written; beyond, from and to its first member
_WRITTEN = {"testbed", "type", "startup", "fixed"}


def is_rspec(data: bytes) -> bool:
    """Whether XML looks like one."""
    return b"geni.net/resources/rspec" in data[:4096]


# Reading


def read(data: bytes, file: str = "rspec") -> Described:
    """Read a request; raises `BadDescription` with every problem found (at most `PROBLEMS_LIMIT`). Addresses may be missing."""
    return _Reader(file).read(parse(data, file))


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []
        self._names: set[str] = set()

    def read(self, root: etree._Element) -> Described:
        """Nodes first, then the links between their interfaces."""
        if etree.QName(root).localname != "rspec" or etree.QName(root).namespace != RSPEC:
            self._say(root, "topology.bad_structure", f"A request is an <rspec> of {RSPEC}.")
            raise BadDescription(self._problems)
        ends: dict[str, list[str]] = {}  # interface to the links that it is on
        substrates = [self._link(link, ends) for link in _children(root, "link")]
        computers = [self._node(node, ends) for node in _children(root, "node")]
        known = {client_id for computer, ids in computers for client_id in ids}
        for client_id in sorted(ends.keys() - known):
            text = f"A link refers to the interface {client_id[:80]!r}, and no node has it."
            self._problem(None, "topology.unknown_interface", text)
        if self._problems:
            raise BadDescription(self._problems[:PROBLEMS_LIMIT])
        topology = Topology(tuple(substrates), tuple(computer for computer, _ in computers))
        return Described(self._with_ways(topology, root), tuple(self._warnings))

    def _node(self, node: etree._Element, ends: dict[str, list[str]]) -> tuple[Computer, list[str]]:
        name = self._unique(node)
        manager, component = node.get("component_manager_id"), node.get("component_id")
        said = {
            "testbed": None if manager is None else _testbed(manager),
            "type": next((h.get("name") for h in _children(node, "hardware_type")), None),
            "fixed": None if component is None else component.rpartition("+")[2],
        }
        images = [
            image.get("name") for sliver in _children(node, "sliver_type") for image in _children(sliver, "disk_image")
        ]
        services = list(_children(node, "services"))
        commands = [one.get("command", "") for service in services for one in _children(service, "execute")]
        said["startup"] = "; ".join(commands) or None
        said |= {str(one.get("name")): one.get("value") for one in node.iterchildren(f"{{{OURS}}}attribute")}
        installs = [one for service in services for one in _children(service, "install")]
        interfaces = [self._interface(name, one, ends) for one in _children(node, "interface")]
        self._warn_of_others(node, {"interface", "hardware_type", "sliver_type", "services"})
        computer = Computer(
            name=name,
            os=tuple(OperatingSystem(attributes=(Attribute("osid", _osid(image)),)) for image in images[:1] if image),
            software=tuple(Software(one.get("url", ""), one.get("install_path")) for one in installs),
            interfaces=tuple(interface for interface, _ in interfaces if interface.substrates),
            attributes=tuple(Attribute(key, value) for key, value in said.items() if value is not None),
        )
        return computer, [client_id for _, client_id in interfaces]

    def _interface(self, node: str, one: etree._Element, ends: dict[str, list[str]]) -> tuple[Interface, str]:
        client_id = self._unique(one)
        substrates = tuple(ends.get(client_id, ()))
        if not substrates:
            self._warn(one, "topology.left_out", f"The interface {client_id[:80]!r} is on no link, and is left out.")
        told: list[Attribute] = []
        for number, ip in enumerate(_children(one, "ip")):
            told.append(Attribute("ip4_alias" if number else "ip4_address", ip.get("address", "")))
            if not number and (netmask := ip.get("netmask")) is not None:
                told.append(Attribute("ip4_netmask", netmask))
        return Interface(client_id.removeprefix(f"{node}:"), substrates, attributes=tuple(told)), client_id

    def _link(self, link: etree._Element, ends: dict[str, list[str]]) -> Substrate:
        name = self._unique(link)
        for reference in _children(link, "interface_ref"):
            ends.setdefault(reference.get("client_id", ""), []).append(name)
        is_lan = any(kind.get("name") == "lan" for kind in _children(link, "link_type"))
        self._warn_of_others(link, {"interface_ref", "property", "link_type", "component_manager"})
        return Substrate(name, attributes=(Attribute("kind", "lan"),) if is_lan else ())

    def _with_ways(self, topology: Topology, root: etree._Element) -> Topology:
        """What properties say of rates, delays and losses, put where it belongs."""
        owners = {
            f"{computer.name}:{interface.name}": (computer.name, interface.name)
            for computer in topology.computers
            for interface in computer.interfaces
        }
        for link in _children(root, "link"):
            ways: dict[tuple[tuple[str, str], tuple[str, str]], Way] = {}
            for one in _children(link, "property"):
                source, target = owners.get(one.get("source_id", "")), owners.get(one.get("dest_id", ""))
                if source is not None and target is not None:
                    ways[source, target] = self._way(one)
            topology = told_of_ends(topology, str(link.get("client_id")), ways)
        if self._problems:
            raise BadDescription(self._problems[:PROBLEMS_LIMIT])
        return topology

    def _way(self, one: etree._Element) -> Way:
        return Way(
            self._number(one, "capacity"), self._number(one, "latency"), min(self._number(one, "packet_loss"), 1.0)
        )

    def _number(self, one: etree._Element, name: str) -> float:
        text = one.get(name)
        try:
            value = float(text or 0)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e15:
            self._say(one, "topology.bad_value", f"{name} cannot be {str(text)[:80]!r}.")
            return 0.0
        return value

    def _unique(self, node: etree._Element) -> str:
        name = node.get("client_id", "")
        if not name:
            self._say(node, "topology.bad_structure", f"A <{etree.QName(node).localname}> lacks its client_id.")
        elif name in self._names:
            self._say(node, "topology.duplicate_name", f"Two things are called {name[:80]!r}; rename one.")
        self._names.add(name)
        return name

    def _warn_of_others(self, node: etree._Element, known: set[str]) -> None:
        for child in node.iterchildren(tag=etree.Element):
            name = etree.QName(child)
            if name.namespace != OURS and not (name.namespace == RSPEC and name.localname in known):
                self._warn(child, "topology.left_out", f"<{name.localname}> means nothing here, and is left out.")

    def _say(self, node: etree._Element, code: str, message: str) -> None:
        self._problem(node.sourceline, code, message)

    def _problem(self, line: int | None, code: str, message: str) -> None:
        self._problems.append(Problem(self._file, line, code, message))
        if len(self._problems) >= PROBLEMS_LIMIT:
            raise BadDescription(self._problems)

    def _warn(self, node: etree._Element, code: str, message: str) -> None:
        if len(self._warnings) < PROBLEMS_LIMIT:
            self._warnings.append(Problem(self._file, node.sourceline, code, message))


def _children(node: etree._Element, tag: str) -> Iterator[etree._Element]:
    return node.iterchildren(f"{{{RSPEC}}}{tag}")


def _testbed(manager: str) -> str:
    """The testbed that a component manager's URN names; anything else is a name itself."""
    parts = manager.split("+")
    return parts[1].replace(":", "/") if manager.startswith("urn:publicid:IDN+") and len(parts) > 2 else manager


def _osid(image: str) -> str:
    return image.removeprefix(IMAGE)


# Writing


def write(topology: Topology) -> bytes:
    """Write a request; raises `BadDescription` for an end of a wire that is no computer."""
    strangers = [type(e).__name__.lower() for e in topology.elements if not isinstance(e, Computer) and e.interfaces]
    if strangers:
        text = f"RSpec has no place for a {strangers[0]} at the end of a wire."
        raise BadDescription([Problem("rspec", None, "topology.cannot_write", text)])
    root = etree.Element(f"{{{RSPEC}}}rspec", nsmap={None: RSPEC, "xsi": XSI, "fedmesh": OURS}, type="request")
    root.set(f"{{{XSI}}}schemaLocation", SCHEMA)
    for computer in topology.computers:
        _write_node(root, computer)
    for substrate in topology.substrates:
        _write_link(root, topology, substrate)
    return etree.tostring(root, pretty_print=True, xml_declaration=True, encoding="UTF-8")


def _write_node(root: etree._Element, computer: Computer) -> None:
    node = _add(root, "node", client_id=computer.name, exclusive="true")
    if computer.testbed:
        node.set("component_manager_id", f"urn:publicid:IDN+{computer.testbed.replace('/', ':')}+authority+cm")
        if fixed := computer.get("fixed"):
            node.set("component_id", f"urn:publicid:IDN+{computer.testbed.replace('/', ':')}+node+{fixed}")
    sliver = _add(node, "sliver_type", name="raw-pc")
    if computer.osid:
        _add(sliver, "disk_image", name=computer.osid if computer.osid.startswith("urn:") else IMAGE + computer.osid)
    if computer.hardware:
        _add(node, "hardware_type", name=computer.hardware)
    if computer.software or computer.startup:
        services = _add(node, "services")
        for software in computer.software:
            place = {"install_path": software.install} if software.install else {}
            _add(services, "install", url=software.location, **place)
        if computer.startup:
            _add(services, "execute", shell="sh", command=computer.startup)  # noqa: S604  an attribute of XML
    for interface in computer.interfaces:
        end = _add(node, "interface", client_id=f"{computer.name}:{interface.name}")
        aliases = [a.value for a in interface.attributes if a.name == "ip4_alias"]
        for address in ([interface.ip4] if interface.ip4 else []) + aliases:
            mask = {"netmask": interface.netmask} if interface.netmask else {}
            _add(end, "ip", address=address, type="ipv4", **mask)
    for attribute in computer.attributes:
        lost_fixed = attribute.name == "fixed" and not computer.testbed  # a component has a manager
        if attribute.name not in _WRITTEN or lost_fixed:
            etree.SubElement(node, f"{{{OURS}}}attribute", name=attribute.name, value=attribute.value)


def _write_link(root: etree._Element, topology: Topology, substrate: Substrate) -> None:
    ends = [(e, i) for e, i in topology.ends[substrate.name] if isinstance(e, Computer)]
    link = _add(root, "link", client_id=substrate.name)
    for computer, interface in ends:
        _add(link, "interface_ref", client_id=f"{computer.name}:{interface.name}")
    pairs: Iterable[tuple[tuple[Computer, Interface], tuple[Computer, Interface]]] = permutations(ends, 2)
    if len(ends) > ALL_PAIRS:
        pairs = [pair for other in ends[1:] for pair in ((ends[0], other), (other, ends[0]))]
    for (source, out), (target, back) in pairs:
        way = way_between(substrate, out, back)
        values = {"capacity": way.rate, "latency": way.delay, "packet_loss": way.loss}
        _add(
            link,
            "property",
            source_id=f"{source.name}:{out.name}",
            dest_id=f"{target.name}:{back.name}",
            **{name: f"{value:.15g}" for name, value in values.items() if value},
        )
    if topology.kind_of(substrate) == "lan":
        _add(link, "link_type", name="lan")


def _add(node: etree._Element, tag: str, **attributes: str) -> etree._Element:
    return etree.SubElement(node, f"{{{RSPEC}}}{tag}", attributes)
