"""Draws a topology as SVG: a box for each testbed, its computers and wires in it, portals at its edges, what crosses between them.

    ┌ deter ────────┐              ┌ ucb ──────────┐
    │ a ───── b ────■═══ link1 ════■──── c ─ ● ─ d │       ■ portal   ● LAN
    └───────────────┘              └─────────┴─ e ─┘

The layout is plain and always the same for the same description: boxes in rows, computers of a box in a grid, neighbours near one
another. Everything has a class and computers and wires a `data-name`, so that a page can colour them by their state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil, hypot, sqrt

from lxml import etree

from fedkit.topology.model import Computer, Topology
from fedkit.topology.split import Connector, Piece, split

CELL_WIDTH, CELL_HEIGHT = 110, 84  # of a computer's place in its box
MARGIN, TITLE, GAP = 36, 30, 120  # around a box's grid, its name, and between boxes
NODE_WIDTH, NODE_HEIGHT = 72, 30
PORTAL = 14
NAME_LENGTH = 12  # characters that fit into a node
NOWHERE = "no testbed"  # the box of those that name none
SVG = "http://www.w3.org/2000/svg"
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1c2733; text-anchor: middle; dominant-baseline: central }
.testbed rect { fill: #f4f7fa; stroke: #8fa3b5; rx: 10 }
.testbed > text { font-weight: 600; font-size: 14px }
.computer rect { fill: #fff; stroke: #3b6ea5; rx: 6 }
.portal rect { fill: #c8552b }
.wire { stroke: #7b8b9a; stroke-width: 1.5; fill: none }
.crossing { stroke: #c8552b; stroke-width: 2; stroke-dasharray: 6 4 }
.lan { fill: #7b8b9a }
.label { font-size: 11px; fill: #55636f; paint-order: stroke; stroke: #f4f7fa; stroke-width: 4px }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .label { fill: #9fb0c0; stroke: #1b2530 }
  .testbed rect { fill: #1b2530; stroke: #4a5b6b } .computer rect { fill: #22303d; stroke: #6fa3d8 }
}
"""


@dataclass(frozen=True)
class _Point:
    x: float
    y: float


@dataclass
class _Box:
    """One testbed's place: its corner, size, and where everything in it stands."""

    piece: Piece
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    computers: dict[str, _Point] = field(default_factory=dict)
    portals: dict[str, _Point] = field(default_factory=dict)
    hubs: set[_Point] = field(default_factory=set)

    @property
    def middle(self) -> _Point:
        return _Point(self.x + self.width / 2, self.y + self.height / 2)


def draw(topology: Topology) -> str:
    """The picture, as text. Computers without a testbed stand in a box of their own."""
    homed = tuple(
        element.with_attributes({"testbed": element.testbed or NOWHERE}) if isinstance(element, Computer) else element
        for element in topology.elements
        if isinstance(element, Computer) or not element.interfaces
    )
    pieces = split(Topology(topology.substrates, homed)).pieces
    boxes = {piece.testbed: _Box(piece) for piece in pieces}
    width, height = _arrange(list(boxes.values()))
    for box in boxes.values():
        _place_computers(box)
        _place_portals(box, boxes)
    root = etree.Element("svg", nsmap={None: SVG}, viewBox=f"0 0 {width:g} {height:g}", role="img")
    etree.SubElement(root, "title").text = f"{len(pieces)} testbeds, {len(list(topology.computers))} computers"
    etree.SubElement(root, "style").text = STYLE
    for box in boxes.values():
        _draw_frame(root, box)
    for box in boxes.values():
        _draw_wires(root, box)
    for way in _ways(boxes):
        _draw_way(root, *way)
    for box in boxes.values():
        _draw_nodes(root, box)
    return etree.tostring(root, encoding="unicode", pretty_print=True)


# Where things are


def _arrange(boxes: list[_Box]) -> tuple[float, float]:
    """Put the boxes into rows; returns the whole width and height."""
    columns = ceil(sqrt(len(boxes))) or 1
    x = y = widest = GAP / 4
    row_height = 0.0
    for number, box in enumerate(boxes):
        if number % columns == 0 and number:
            x, y, row_height = GAP / 4, y + row_height + GAP, 0.0
        across = _across(box)
        down = ceil(len(list(box.piece.topology.computers)) / across)
        box.width = 2 * MARGIN + across * CELL_WIDTH
        box.height = MARGIN + TITLE + max(down, 1) * CELL_HEIGHT
        box.x, box.y = x, y
        x += box.width + GAP
        row_height = max(row_height, box.height)
        widest = max(widest, x - GAP * 3 / 4)
    return widest, y + row_height + GAP / 4


def _across(box: _Box) -> int:
    return max(1, ceil(sqrt(len(list(box.piece.topology.computers)))))


def _place_computers(box: _Box) -> None:
    across = _across(box)
    for number, name in enumerate(_in_order(box.piece.topology)):
        row, column = divmod(number, across)
        column = across - 1 - column if row % 2 else column  # back and forth, so that neighbours stay neighbours
        x = box.x + MARGIN + (column + 0.5) * CELL_WIDTH
        box.computers[name] = _Point(x, box.y + TITLE + (row + 0.5) * CELL_HEIGHT)


def _in_order(topology: Topology) -> list[str]:
    """Computers along the wires, beginning with the first of the file."""
    on = {computer.name: [n for i in computer.interfaces for n in i.substrates] for computer in topology.computers}
    members = {name: [e.name for e, _ in ends if isinstance(e, Computer)] for name, ends in topology.ends.items()}
    found: dict[str, None] = {}
    for first in on:
        row = [first] if first not in found else []
        found[first] = None
        for name in row:
            new = [member for wire in on[name] for member in members[wire] if member not in found]
            found.update(dict.fromkeys(new))
            row.extend(dict.fromkeys(new))
    return list(found)


def _place_portals(box: _Box, boxes: Mapping[str, _Box]) -> None:
    """Each where the line to its peer leaves the box; those that would meet move apart along the edge."""
    for connector in box.piece.connectors:
        point = _edge(box, boxes[connector.peer].middle)
        while any(hypot(point.x - other.x, point.y - other.y) < PORTAL * 1.5 for other in box.portals.values()):
            is_side = point.x in (box.x, box.x + box.width)
            point = _Point(point.x, point.y + PORTAL * 2) if is_side else _Point(point.x + PORTAL * 2, point.y)
        box.portals[connector.name] = point


def _edge(box: _Box, towards: _Point) -> _Point:
    middle = box.middle
    dx, dy = towards.x - middle.x, towards.y - middle.y
    scale = min(box.width / 2 / abs(dx) if dx else 1e9, box.height / 2 / abs(dy) if dy else 1e9)
    return _Point(middle.x + dx * scale, middle.y + dy * scale)


def _ways(boxes: Mapping[str, _Box]) -> Iterator[tuple[_Point, _Point, str]]:
    """Both portals of each way between two testbeds, once, and the names of what crosses there."""
    for box in boxes.values():
        for connector in box.piece.connectors:
            if connector.peer > box.piece.testbed:
                other = boxes[connector.peer]
                far = _partner(connector, box.piece.testbed, other.piece)
                names = ", ".join(crossing.substrate for crossing in connector.crossings)
                yield box.portals[connector.name], other.portals[far.name], names


def _partner(connector: Connector, testbed: str, other: Piece) -> Connector:
    """The connector at the other end: the one that carries the same crossings."""
    carried = {crossing.substrate for crossing in connector.crossings}
    candidates = [c for c in other.connectors if c.peer == testbed]
    return next(c for c in candidates if carried & {crossing.substrate for crossing in c.crossings})


# What is drawn


def _draw_frame(root: etree._Element, box: _Box) -> None:
    group = etree.SubElement(root, "g", {"class": "testbed", "data-name": box.piece.testbed})
    _rectangle(group, box.x, box.y, box.width, box.height)
    _text(group, box.x + box.width / 2, box.y + TITLE / 2, box.piece.testbed)


def _draw_wires(root: etree._Element, box: _Box) -> None:
    """A line between two ends; a dot with a line to each of more."""
    portals: dict[str, list[_Point]] = {}
    for connector in box.piece.connectors:
        for crossing in connector.crossings:
            portals.setdefault(crossing.substrate, []).append(box.portals[connector.name])
    topology = box.piece.topology
    for substrate in topology.substrates:
        ends = [box.computers[e.name] for e, _ in topology.ends[substrate.name] if isinstance(e, Computer)]
        crosses = substrate.name in portals
        ends += portals.get(substrate.name, [])
        group = etree.SubElement(root, "g", {"class": "substrate", "data-name": substrate.name})
        etree.SubElement(group, "title").text = substrate.name
        middle = _Point(sum(e.x for e in ends) / len(ends), sum(e.y for e in ends) / len(ends))
        if topology.kind_of(substrate) == "link" and len(ends) == 2:
            _line(group, ends[0], ends[1], "wire")
            if not crosses:  # else it is told between the testbeds
                _text(group, middle.x, middle.y, substrate.name, "label")
            continue
        hub = _hub(box, middle)
        for end in ends:
            _line(group, end, hub, "wire")
        etree.SubElement(group, "circle", {"class": "lan", "cx": f"{hub.x:g}", "cy": f"{hub.y:g}", "r": "5"})
        _text(group, hub.x, hub.y + 14, substrate.name, "label")


def _hub(box: _Box, wanted: _Point) -> _Point:
    """A corner between four computers that no other LAN has, nearest to where it would be best."""
    across = _across(box)
    down = ceil(len(box.computers) / across)
    corners = [
        _Point(box.x + MARGIN + column * CELL_WIDTH, box.y + TITLE + row * CELL_HEIGHT)
        for row in range(1, down + 1)
        for column in range(across + 1)
    ]
    free = [corner for corner in corners if corner not in box.hubs] or corners
    hub = min(free, key=lambda corner: hypot(corner.x - wanted.x, corner.y - wanted.y))
    box.hubs.add(hub)
    return hub


def _draw_way(root: etree._Element, one: _Point, other: _Point, names: str) -> None:
    _line(root, one, other, "wire crossing")
    _text(root, (one.x + other.x) / 2, (one.y + other.y) / 2, names, "label")


def _draw_nodes(root: etree._Element, box: _Box) -> None:
    for name, point in box.computers.items():
        group = etree.SubElement(root, "g", {"class": "computer", "data-name": name})
        etree.SubElement(group, "title").text = name
        _rectangle(group, point.x - NODE_WIDTH / 2, point.y - NODE_HEIGHT / 2, NODE_WIDTH, NODE_HEIGHT)
        _text(group, point.x, point.y, name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…")
    for name, point in box.portals.items():
        group = etree.SubElement(root, "g", {"class": "portal", "data-name": name})
        etree.SubElement(group, "title").text = name
        _rectangle(group, point.x - PORTAL / 2, point.y - PORTAL / 2, PORTAL, PORTAL)


def _rectangle(group: etree._Element, x: float, y: float, width: float, height: float) -> None:
    etree.SubElement(
        group, "rect", {k: f"{v:g}" for k, v in (("x", x), ("y", y), ("width", width), ("height", height))}
    )


def _line(group: etree._Element, one: _Point, other: _Point, style: str) -> None:
    ends = {"x1": one.x, "y1": one.y, "x2": other.x, "y2": other.y}
    etree.SubElement(group, "line", {"class": style} | {name: f"{value:g}" for name, value in ends.items()})


def _text(group: etree._Element, x: float, y: float, text: str, style: str | None = None) -> None:
    attributes = {"x": f"{x:g}", "y": f"{y:g}"} | ({"class": style} if style else {})
    etree.SubElement(group, "text", attributes).text = text
