"""Where everything stands in a topology's picture: a box for each testbed, portals at its edges, what crosses between them.

    ┌ deter ────────┐              ┌ ucb ──────────┐
    │ a ───── b ────■═══ link1 ════■──── c ─ ● ─ d │       ■ portal   ● LAN
    └───────────────┘              └─────────┴─ e ─┘

The picture on the server (`picture.py`) and the one on the dashboard are drawn after the same layout, which is plain, and always the
same for the same description: boxes in rows, the computers of a box on a grid. Lengths are in units of the picture's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import ceil, floor, hypot, sqrt

from fedkit.topology.grid import Wire as GridWire
from fedkit.topology.grid import across, cells_of, down
from fedkit.topology.model import Computer, Topology
from fedkit.topology.split import Connector, Piece, split

CELL_WIDTH, CELL_HEIGHT = 112, 84  # of a computer's place in its box
MARGIN, TITLE, GAP = 36, 34, 120  # around a box's grid, its name, and between boxes
NODE_WIDTH, NODE_HEIGHT = 74, 32
PORTAL = 14
APART = PORTAL * 1.5  # at least, between the middles of two portals
NOWHERE = "no testbed"  # the box of those that name none
SLANTING = 0.27  # where the label of a slanting way is, from its first end: two that cross can both be read


@dataclass(frozen=True)
class Point:
    """A place."""

    x: float
    y: float


@dataclass(frozen=True)
class Frame:
    """A testbed's box, by its upper left corner."""

    testbed: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Spot:
    """The middle of a computer."""

    name: str
    testbed: str
    x: float
    y: float


@dataclass(frozen=True)
class Gate:
    """The middle of a portal."""

    name: str
    testbed: str
    peer: str
    x: float
    y: float


@dataclass(frozen=True)
class Line:
    """From here to there."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Wire:
    """A substrate within one testbed; its lines meet at `hub`. Without `label` its name is told between the testbeds."""

    substrate: str
    testbed: str
    lines: tuple[Line, ...]
    hub: Point | None
    label: Point | None


@dataclass(frozen=True)
class Way:
    """What joins two portals, and the substrates that cross there."""

    testbeds: tuple[str, str]
    substrates: tuple[str, ...]
    line: Line
    label: Point


@dataclass(frozen=True)
class Layout:
    """The whole."""

    width: float
    height: float
    testbeds: tuple[Frame, ...]
    computers: tuple[Spot, ...]
    portals: tuple[Gate, ...]
    wires: tuple[Wire, ...]
    ways: tuple[Way, ...]


class _Crowd:
    """Points by squares, so that whoever is near is found without asking everybody."""

    def __init__(self) -> None:
        self._squares: dict[tuple[int, int], list[Point]] = {}

    def add(self, point: Point) -> None:
        self._squares.setdefault(_square(point), []).append(point)

    def is_near(self, point: Point) -> bool:
        column, row = _square(point)
        around = product(range(column - 1, column + 2), range(row - 1, row + 2))
        others = (other for square in around for other in self._squares.get(square, ()))
        return any(hypot(point.x - other.x, point.y - other.y) < APART for other in others)


def _square(point: Point) -> tuple[int, int]:
    return floor(point.x / APART), floor(point.y / APART)


@dataclass
class _Box:
    """One testbed's place while it is found."""

    piece: Piece
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0
    computers: dict[str, Point] = field(default_factory=dict)
    portals: dict[str, Point] = field(default_factory=dict)
    hubs: set[Point] = field(default_factory=set)

    @cached_property
    def count(self) -> int:
        return len(list(self.piece.topology.computers))

    @property
    def middle(self) -> Point:
        return Point(self.x + self.width / 2, self.y + self.height / 2)

    @property
    def grid(self) -> Point:
        """The upper left corner of the grid, which stands in the middle of the box."""
        return Point(self.x + MARGIN, self.y + TITLE + (self.height - TITLE - down(self.count) * CELL_HEIGHT) / 2)


def lay_out(topology: Topology, portals: int = 1) -> Layout:
    """Lay a topology out; computers without a testbed stand in a box of their own. `portals` as `split` has it."""
    homed = tuple(
        element.with_attributes({"testbed": element.testbed or NOWHERE}) if isinstance(element, Computer) else element
        for element in topology.elements
        if isinstance(element, Computer) or not element.interfaces
    )
    pieces = split(Topology(topology.substrates, homed), portals).pieces
    boxes = {piece.testbed: _Box(piece) for piece in pieces}
    width, height = _arrange(list(boxes.values()))
    for box in boxes.values():
        _place_portals(box, boxes)
        _place_computers(box)
    every = boxes.values()
    return Layout(
        width,
        height,
        testbeds=tuple(Frame(box.piece.testbed, box.x, box.y, box.width, box.height) for box in every),
        computers=tuple(
            Spot(name, box.piece.testbed, at.x, at.y) for box in every for name, at in box.computers.items()
        ),
        portals=tuple(gate for box in every for gate in _gates(box)),
        wires=tuple(wire for box in every for wire in _wires(box)),
        ways=tuple(_ways(boxes)),
    )


def _arrange(boxes: list[_Box]) -> tuple[float, float]:
    """Put the boxes into rows, those of a row equally high; returns the whole width and height."""
    columns = ceil(sqrt(len(boxes))) or 1
    y, widest = GAP / 4, GAP / 2
    for first in range(0, len(boxes), columns):
        row, x = boxes[first : first + columns], GAP / 4
        height = max(MARGIN + TITLE + down(box.count) * CELL_HEIGHT for box in row)
        for box in row:
            box.x, box.y, box.height = x, y, height
            box.width = 2 * MARGIN + across(box.count) * CELL_WIDTH
            x += box.width + GAP
        y += height + GAP
        widest = max(widest, x - GAP * 3 / 4)
    return widest, max(y - GAP * 3 / 4, GAP / 2)


def _place_portals(box: _Box, boxes: Mapping[str, _Box]) -> None:
    """Each where the line to its peer leaves the box; those that would meet move apart along the edge."""
    crowd = _Crowd()
    for connector in box.piece.connectors:
        point = _edge(box, boxes[connector.peer].middle)
        while crowd.is_near(point):
            is_side = point.x in (box.x, box.x + box.width)
            point = Point(point.x, point.y + PORTAL * 2) if is_side else Point(point.x + PORTAL * 2, point.y)
        box.portals[connector.name] = point
        crowd.add(point)


def _edge(box: _Box, towards: Point) -> Point:
    middle = box.middle
    dx, dy = towards.x - middle.x, towards.y - middle.y
    scale = min(box.width / 2 / abs(dx) if dx else 1e9, box.height / 2 / abs(dy) if dy else 1e9)
    return Point(middle.x + dx * scale, middle.y + dy * scale)


def _place_computers(box: _Box) -> None:
    names = [computer.name for computer in box.piece.topology.computers]
    number = {name: index for index, name in enumerate(names)}
    ends, leaving = box.piece.topology.ends, _leaving(box)
    wires = [
        GridWire(
            [number[end.name] for end, _ in ends[substrate.name] if isinstance(end, Computer)],
            [
                ((at.x - box.grid.x) / CELL_WIDTH - 0.5, (at.y - box.grid.y) / CELL_HEIGHT - 0.5)
                for at in leaving.get(substrate.name, ())
            ],
        )
        for substrate in box.piece.topology.substrates
    ]
    for name, (column, row) in zip(names, cells_of(len(names), wires), strict=True):
        box.computers[name] = Point(box.grid.x + (column + 0.5) * CELL_WIDTH, box.grid.y + (row + 0.5) * CELL_HEIGHT)


def _leaving(box: _Box) -> dict[str, list[Point]]:
    """At which portals each substrate that is cut leaves the box."""
    found: dict[str, list[Point]] = {}
    for connector in box.piece.connectors:
        for crossing in connector.crossings:
            found.setdefault(crossing.substrate, []).append(box.portals[connector.name])
    return found


def _gates(box: _Box) -> Iterator[Gate]:
    for connector in box.piece.connectors:
        at = box.portals[connector.name]
        yield Gate(connector.name, box.piece.testbed, connector.peer, at.x, at.y)


def _wires(box: _Box) -> Iterator[Wire]:
    """A line between two ends; of more, a line from each to their hub."""
    topology, leaving = box.piece.topology, _leaving(box)
    for substrate in topology.substrates:
        out = leaving.get(substrate.name, [])
        ends = [box.computers[e.name] for e, _ in topology.ends[substrate.name] if isinstance(e, Computer)] + out
        middle = Point(sum(end.x for end in ends) / len(ends), sum(end.y for end in ends) / len(ends))
        hub: Point | None = None
        label: Point | None = None if out else middle
        if topology.kind_of(substrate) == "link" and len(ends) == 2:
            lines: tuple[Line, ...] = (_line(ends[0], ends[1]),)
        else:
            hub = _hub(box, middle)
            lines = tuple(_line(end, hub) for end in ends)
            label = Point(hub.x, hub.y + 14)
        yield Wire(substrate.name, box.piece.testbed, lines, hub, label)


def _hub(box: _Box, wanted: Point) -> Point:
    """A corner between four computers that no other LAN has, nearest to where it would be best."""
    corners = [
        Point(box.grid.x + column * CELL_WIDTH, box.grid.y + row * CELL_HEIGHT)
        for row in range(1, down(box.count) + 1)
        for column in range(across(box.count) + 1)
    ]
    free = [corner for corner in corners if corner not in box.hubs] or corners
    hub = min(free, key=lambda corner: hypot(corner.x - wanted.x, corner.y - wanted.y))
    box.hubs.add(hub)
    return hub


def _ways(boxes: Mapping[str, _Box]) -> Iterator[Way]:
    """Each way between two testbeds, once."""
    for box in boxes.values():
        for connector in box.piece.connectors:
            if connector.peer > box.piece.testbed:
                other = boxes[connector.peer]
                far = _partner(connector, box.piece.testbed, other.piece)
                one, two = box.portals[connector.name], other.portals[far.name]
                along = 0.5 if one.x == two.x or one.y == two.y else SLANTING
                at = Point(one.x + (two.x - one.x) * along, one.y + (two.y - one.y) * along)
                names = tuple(crossing.substrate for crossing in connector.crossings)
                yield Way((box.piece.testbed, connector.peer), names, _line(one, two), at)


def _partner(connector: Connector, testbed: str, other: Piece) -> Connector:
    """The connector at the other end: the one that carries the same crossings."""
    carried = {crossing.substrate for crossing in connector.crossings}
    candidates = [c for c in other.connectors if c.peer == testbed]
    return next(c for c in candidates if carried & {crossing.substrate for crossing in c.crossings})


def _line(one: Point, other: Point) -> Line:
    return Line(one.x, one.y, other.x, other.y)
