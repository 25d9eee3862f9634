"""Draws a topology as SVG, after the layout that `layout.py` gives it.

Everything has a class, and computers, wires, portals and testbeds a `data-name`. A computer whose state is known is marked by a sign and
says it in words, as its colour alone would not tell everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from fedkit.topology.layout import NODE_HEIGHT, NODE_WIDTH, PORTAL, Layout, Line, Spot, lay_out
from fedkit.topology.model import Topology

NAME_LENGTH = 11  # characters that fit into a node
WAY_LENGTH = 16  # characters that fit between two testbeds
CHARACTER = 8.2  # width of one of a testbed's name, at most
SIGNS = {"starting": "…", "running": "✓", "stopped": "■", "failed": "✗"}
SVG = "http://www.w3.org/2000/svg"
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1c2733; text-anchor: middle; dominant-baseline: central }
.testbed rect { fill: #f4f7fa; stroke: #8fa3b5; rx: 10 }
.title { font-weight: 600; font-size: 14px; text-anchor: start; paint-order: stroke; stroke: #f4f7fa; stroke-width: 5px }
.computer rect { fill: #fff; stroke: #3b6ea5; rx: 6 }
.running rect { fill: #e0f3e7; stroke: #14713d } .running .sign { fill: #14713d }
.starting rect { fill: #fdf0d5; stroke: #8a5a00 } .starting .sign { fill: #8a5a00 }
.stopped rect { stroke: #5b6678; stroke-dasharray: 4 3 }
.failed rect { fill: #fbe3e4; stroke: #a3242b; stroke-width: 2 } .failed .sign { fill: #a3242b }
.portal rect { fill: #c8552b }
.wire { stroke: #7b8b9a; stroke-width: 1.5; fill: none }
.crossing { stroke: #c8552b; stroke-width: 2; stroke-dasharray: 6 4 }
.lan { fill: #7b8b9a }
.label { font-size: 11px; fill: #55636f; paint-order: stroke; stroke: #f4f7fa; stroke-width: 4px }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .label { fill: #9fb0c0 } .label, .title { stroke: #1b2530 }
  .testbed rect { fill: #1b2530; stroke: #4a5b6b } .computer rect { fill: #22303d; stroke: #6fa3d8 }
  .running rect { fill: #173524; stroke: #7fdca2 } .running .sign { fill: #7fdca2 }
  .starting rect { fill: #3a2d11; stroke: #f3c56b } .starting .sign { fill: #f3c56b }
  .failed rect { fill: #42191c; stroke: #ff9aa0 } .failed .sign { fill: #ff9aa0 }
}
"""


@dataclass(frozen=True)
class Condition:
    """How a computer is: one of `SIGNS`, and why in words."""

    status: str
    reason: str = ""


def draw(topology: Topology, portals: int = 1, conditions: Mapping[str, Condition] | None = None) -> str:
    """The picture, as text. Computers without a testbed stand in a box of their own; `conditions` are of those that are known."""
    layout = lay_out(topology, portals)
    root = etree.Element("svg", nsmap={None: SVG}, viewBox=f"0 0 {layout.width:g} {layout.height:g}", role="img")
    title = f"{len(layout.testbeds)} testbeds, {len(layout.computers)} computers"
    etree.SubElement(root, "title").text = title
    etree.SubElement(root, "style").text = STYLE
    _draw_frames(root, layout)
    _draw_wires(root, layout)
    _draw_titles(root, layout)
    for spot in layout.computers:
        _draw_computer(root, spot, (conditions or {}).get(spot.name))
    for gate in layout.portals:
        group = _group(root, "portal", gate.name, f"{gate.name}, to {gate.peer}")
        _rectangle(group, gate.x - PORTAL / 2, gate.y - PORTAL / 2, PORTAL, PORTAL)
    return etree.tostring(root, encoding="unicode", pretty_print=True)


def _draw_frames(root: etree._Element, layout: Layout) -> None:
    for frame in layout.testbeds:
        group = _group(root, "testbed", frame.testbed, frame.testbed)
        _rectangle(group, frame.x, frame.y, frame.width, frame.height)


def _draw_titles(root: etree._Element, layout: Layout) -> None:
    """Over the wires, so that they can be read."""
    for frame in layout.testbeds:
        name = _short(frame.testbed, int(frame.width / CHARACTER) - 3)
        _text(root, frame.x + 14, frame.y + 18, name, "title")


def _draw_wires(root: etree._Element, layout: Layout) -> None:
    for wire in layout.wires:
        group = _group(root, "substrate", wire.substrate, wire.substrate)
        for line in wire.lines:
            _line(group, line, "wire")
        if wire.hub is not None:
            etree.SubElement(
                group, "circle", {"class": "lan", "cx": f"{wire.hub.x:g}", "cy": f"{wire.hub.y:g}", "r": "5"}
            )
        if wire.label is not None:
            _text(group, wire.label.x, wire.label.y, wire.substrate, "label")
    for way in layout.ways:
        _line(root, way.line, "wire crossing")
        names = ", ".join(way.substrates)
        told = names if len(names) <= WAY_LENGTH else f"{len(way.substrates)} wires"
        _text(root, way.label.x, way.label.y, told, "label")


def _draw_computer(root: etree._Element, spot: Spot, condition: Condition | None) -> None:
    status = "" if condition is None else condition.status
    told = [spot.name, status, "" if condition is None else condition.reason]
    group = _group(root, f"computer {status}".rstrip(), spot.name, ": ".join(filter(None, told)))
    _rectangle(group, spot.x - NODE_WIDTH / 2, spot.y - NODE_HEIGHT / 2, NODE_WIDTH, NODE_HEIGHT)
    _text(group, spot.x, spot.y, _short(spot.name, NAME_LENGTH))
    if status in SIGNS:
        _text(group, spot.x + NODE_WIDTH / 2 - 8, spot.y - NODE_HEIGHT / 2 + 8, SIGNS[status], "sign")


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _group(root: etree._Element, style: str, name: str, title: str) -> etree._Element:
    group = etree.SubElement(root, "g", {"class": style, "data-name": name})
    etree.SubElement(group, "title").text = title
    return group


def _rectangle(group: etree._Element, x: float, y: float, width: float, height: float) -> None:
    etree.SubElement(
        group, "rect", {k: f"{v:g}" for k, v in (("x", x), ("y", y), ("width", width), ("height", height))}
    )


def _line(group: etree._Element, line: Line, style: str) -> None:
    ends = {"x1": line.x1, "y1": line.y1, "x2": line.x2, "y2": line.y2}
    etree.SubElement(group, "line", {"class": style} | {name: f"{value:g}" for name, value in ends.items()})


def _text(group: etree._Element, x: float, y: float, text: str, style: str | None = None) -> None:
    attributes = {"x": f"{x:g}", "y": f"{y:g}"} | ({"class": style} if style else {})
    etree.SubElement(group, "text", attributes).text = text
