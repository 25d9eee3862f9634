"""topdl 1.0, DETER's XML for topologies: read after the published schema, written so that reading gives the same again.

One table per type says which child stands where (`_SEQUENCES`), and serves the reader and the writer alike:

    XML ── lxml, no entities, bounded ──► elements ── the tables ──► model ── the tables ──► XML

What the schema forbids is told with its line: an element out of order, one too many, an unknown one, a number that is none, a
substrate that does not exist or exists twice. The root's name is free (fedd says `experiment` or `topology`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, cast

from lxml import etree

from fedkit.topology.errors import BadDescription, Problem
from fedkit.topology.model import (
    Attribute,
    Capacity,
    Computer,
    Cpu,
    ElementService,
    Id,
    Interface,
    Latency,
    OperatingSystem,
    Other,
    Parameter,
    Segment,
    Software,
    Storage,
    Substrate,
    Testbed,
    Topology,
    unnamed_interfaces_named,
)
from fedkit.topology.xml import parse

PROBLEMS_LIMIT = 100  # of one file
_ID_KINDS = ("uuid", "fedid", "uri", "localname", "kerberosUsername")

Convert = Callable[[str], Any]


@dataclass(frozen=True)
class Child:
    """A child element: what it is called, which field it fills, and what stands in it."""

    tag: str
    field: str
    of: type | Convert
    many: bool = False


def _number(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e15:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise ValueError
    return value


def _one_of(*allowed: str) -> Convert:
    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return convert


_RATE_KIND = _one_of("max", "average")
_ATTRIBUTE = Child("attribute", "attributes", Attribute, many=True)
_SERVED = (
    Child("localname", "local_names", str, many=True),
    Child("status", "status", str),
    Child("service", "services", ElementService, many=True),
    Child("operation", "operations", str, many=True),
)
_INTERFACE = Child("interface", "interfaces", Interface, many=True)

_SEQUENCES: dict[type, tuple[Child, ...]] = {
    Attribute: (Child("attribute", "name", str), Child("value", "value", str)),
    Capacity: (Child("rate", "rate", _number), Child("kind", "kind", _RATE_KIND)),
    Latency: (Child("time", "time", _number), Child("kind", "kind", _RATE_KIND)),
    Parameter: (Child("name", "name", str), Child("type", "type", _one_of("string", "int", "float"))),
    ElementService: (
        Child("name", "name", str),
        Child("importer", "importers", str, many=True),
        Child("param", "parameters", Parameter, many=True),
        Child("description", "description", str),
        Child("status", "status", str),
    ),
    Interface: (
        Child("substrate", "substrates", str, many=True),
        Child("name", "name", str),
        Child("capacity", "capacity", Capacity),
        Child("latency", "latency", Latency),
        _ATTRIBUTE,
    ),
    Cpu: (Child("type", "type", str), _ATTRIBUTE),
    OperatingSystem: (
        Child("name", "name", str),
        Child("version", "version", str),
        Child("distribution", "distribution", str),
        Child("distributionversion", "distribution_version", str),
        _ATTRIBUTE,
    ),
    Software: (Child("location", "location", str), Child("install", "install", str), _ATTRIBUTE),
    Storage: (
        Child("amount", "amount", _number),
        Child("persistence", "persistence", _one_of("temporary", "persistent")),
        _ATTRIBUTE,
    ),
    Computer: (
        Child("name", "name", str),
        Child("cpu", "cpus", Cpu, many=True),
        Child("os", "os", OperatingSystem, many=True),
        Child("software", "software", Software, many=True),
        Child("storage", "storage", Storage, many=True),
        _INTERFACE,
        _ATTRIBUTE,
        *_SERVED,
    ),
    Testbed: (Child("uri", "uri", str), Child("type", "type", str), _INTERFACE, _ATTRIBUTE, *_SERVED),
    Segment: (
        Child("id", "id", Id),
        Child("type", "type", str),
        Child("uri", "uri", str),
        _INTERFACE,
        _ATTRIBUTE,
    ),
    Other: (_INTERFACE, _ATTRIBUTE),
    Substrate: (
        Child("name", "name", str),
        Child("capacity", "capacity", Capacity),
        Child("latency", "latency", Latency),
        _ATTRIBUTE,
        *_SERVED,
    ),
    Topology: (
        Child("version", "version", str),
        Child("substrates", "substrates", Substrate, many=True),
        Child("elements", "elements", object, many=True),
        _ATTRIBUTE,
    ),
}
_ELEMENTS: dict[str, type] = {"computer": Computer, "testbed": Testbed, "segment": Segment, "other": Other}
_REQUIRED = {(Topology, "version")}  # the model has a default, the schema has none
_XML_ATTRIBUTES: dict[type, tuple[str, Convert]] = {
    Cpu: ("count", _count)
}  # the one thing that topdl writes as an attribute of XML


def read(data: bytes, file: str = "topdl") -> Topology:
    """Read a description; raise `BadDescription` with every problem found (at most `PROBLEMS_LIMIT`)."""
    reader = _Reader(file)
    root = parse(data, file)
    topology = cast(Topology, reader.build(Topology, root))
    reader.check(root)
    if reader.problems:
        raise BadDescription(reader.problems)
    return topology


def write(topology: Topology, root: Literal["experiment", "topology"] = "experiment") -> bytes:
    """Write a description. Services and routing have no place in topdl and are left to the caller (`--service`)."""
    element = etree.Element(root)
    _fill(element, topology)
    return etree.tostring(element, pretty_print=True, xml_declaration=True, encoding="UTF-8")


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def build(self, kind: type, node: etree._Element) -> Any:
        """Make one model object of an element and its children."""
        if kind is Id:
            return self._id(node)
        sequence, place = _SEQUENCES[kind], 0
        values: dict[str, Any] = {}
        for child in node.iterchildren(tag=etree.Element):
            tag = etree.QName(child).localname
            found = next((i for i in range(place, len(sequence)) if sequence[i].tag == tag), None)
            if found is None:
                self._misplaced(child, tag, sequence, node)
                continue
            rule = sequence[found]
            place = found if rule.many else found + 1
            value = self._value(rule, child)
            if rule.many:
                values.setdefault(rule.field, []).append(value)
            else:
                values[rule.field] = value
        values |= {rule.field: tuple(values.get(rule.field, ())) for rule in sequence if rule.many}
        if kind in _XML_ATTRIBUTES:
            self._xml_attribute(kind, node, values)
        return self._made(kind, node, values)

    def check(self, root: etree._Element) -> None:
        """What the schema cannot say: names that must be unique, and ones that must exist."""
        known = self._unique("substrates", _children(root, "substrates"))
        elements = [one for holder in _children(root, "elements") for one in holder.iterchildren(tag=etree.Element)]
        self._unique("computers", (one for one in elements if etree.QName(one).localname == "computer"))
        for element in elements:
            for interface in _children(element, "interface"):
                for substrate in _children(interface, "substrate"):
                    if _stripped(substrate) not in known:
                        text = f"An interface is on {_stripped(substrate)[:80]!r}, and there is no such substrate."
                        self._say(substrate.sourceline, "topology.unknown_substrate", text)

    def _unique(self, what: str, nodes: Iterable[etree._Element]) -> set[str]:
        """Their names, each once."""
        known: set[str] = set()
        for name in (name for node in nodes for name in _children(node, "name")):
            if _stripped(name) in known:
                text = f"Two {what} are called {_stripped(name)[:80]!r}; rename one."
                self._say(name.sourceline, "topology.duplicate_name", text)
            known.add(_stripped(name))
        return known

    def _value(self, rule: Child, node: etree._Element) -> Any:
        if rule.of is object:
            return self._element(node)
        if isinstance(rule.of, type) and rule.of in {*_SEQUENCES, Id}:
            return self.build(rule.of, node)
        text = _stripped(node)
        try:
            return cast(Convert, rule.of)(text)
        except ValueError:
            self._say(node.sourceline, "topology.bad_value", f"<{rule.tag}> cannot be {text[:80]!r}.")
            return None

    def _element(self, node: etree._Element) -> Any:
        children = list(node.iterchildren(tag=etree.Element))
        tags = [etree.QName(child).localname for child in children]
        if len(tags) != 1 or tags[0] not in _ELEMENTS:
            text = (
                f"<elements> holds exactly one of {', '.join(_ELEMENTS)}; here it holds {', '.join(tags) or 'nothing'}."
            )
            self._say(node.sourceline, "topology.bad_structure", text)
            return Other()
        return self.build(_ELEMENTS[tags[0]], children[0])

    def _id(self, node: etree._Element) -> Id:
        children = list(node.iterchildren(tag=etree.Element))
        kind = etree.QName(children[0]).localname if len(children) == 1 else ""
        if kind not in _ID_KINDS:
            self._say(node.sourceline, "topology.bad_structure", f"<id> holds exactly one of {', '.join(_ID_KINDS)}.")
            return Id("localname", "")
        return Id(kind, _stripped(children[0]))

    def _xml_attribute(self, kind: type, node: etree._Element, values: dict[str, Any]) -> None:
        name, convert = _XML_ATTRIBUTES[kind]
        text = node.get(name)
        if text is None:
            return
        try:
            values[name] = convert(text)
        except ValueError:
            self._say(node.sourceline, "topology.bad_value", f"{name}= cannot be {text[:80]!r}.")

    def _made(self, kind: type, node: etree._Element, values: dict[str, Any]) -> Any:
        if kind is Interface:
            values.setdefault("name", "")
            if not values["substrates"]:
                self._say(node.sourceline, "topology.bad_structure", "An interface is on one substrate at least.")
        if "interfaces" in values:
            values["interfaces"] = unnamed_interfaces_named(values["interfaces"])
        for one in fields(kind):
            required = (one.default is MISSING and one.default_factory is MISSING) or (kind, one.name) in _REQUIRED
            if required and values.get(one.name) is None:
                if one.name not in values:
                    tag = etree.QName(node).localname
                    self._say(node.sourceline, "topology.bad_structure", f"<{tag}> lacks its {one.name}.")
                values[one.name] = ""
        return kind(**{name: value for name, value in values.items() if value is not None})

    def _misplaced(self, child: etree._Element, tag: str, sequence: Iterable[Child], parent: etree._Element) -> None:
        order = [rule.tag for rule in sequence]
        where = f"<{etree.QName(parent).localname}>"
        if tag in order:
            text = f"<{tag}> is out of order or one too many in {where}; the order is {', '.join(order)}."
        else:
            text = f"{where} knows no <{tag}>; it holds {', '.join(order)}."
        self._say(cast(int, child.sourceline), "topology.bad_structure", text)

    def _say(self, line: int | None, code: str, message: str) -> None:
        self.problems.append(Problem(self.file, line, code, message))
        if len(self.problems) >= PROBLEMS_LIMIT:
            raise BadDescription(self.problems)


def _children(node: etree._Element, tag: str) -> Iterator[etree._Element]:
    return (child for child in node.iterchildren(tag=etree.Element) if etree.QName(child).localname == tag)


def _stripped(node: etree._Element) -> str:
    return (node.text or "").strip()


def _fill(node: etree._Element, thing: Any) -> None:
    """Write the children of one model object."""
    if isinstance(thing, Id):
        etree.SubElement(node, thing.kind).text = thing.value
        return
    if type(thing) in _XML_ATTRIBUTES and thing.count != 1:
        node.set("count", str(thing.count))
    for rule in _SEQUENCES[type(thing)]:
        value = getattr(thing, rule.field)
        for one in value if rule.many else () if value is None else (value,):
            child = etree.SubElement(node, rule.tag)
            if rule.of is object:
                _fill(etree.SubElement(child, type(one).__name__.lower()), one)
            elif isinstance(one, (str, int, float)):
                child.text = _text(one)
            else:
                _fill(child, one)


def _text(value: str | float) -> str:
    return f"{value:.15g}" if isinstance(value, float) else str(value)
