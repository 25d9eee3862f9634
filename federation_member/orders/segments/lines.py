"""Delays and losses of links that cross: its portal sees to them, in user space, because a node's kernel may know no netem.

    node ── rate, queue ── portal ── delay and loss, both ways ══ the other portal: what its own node asks for ── node

Each lender does what its own end of a link asks for, so the two add up without a word between them. It is the portal's affair only
where a network crosses once and one computer of the piece is on it: then all that passes the one passes the other. On other
networks each interface sees to itself, as it does with rates. A desktop that was attached is where that computer is, at the near end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from federation_member.orders.segments.state import SegmentState
from federation_member.orders.segments.wiring import Wiring, read
from fedkit.kits.installed import kit_named
from fedkit.portal.config import LONGEST_DELAY
from fedkit.protocol.lending import Offer
from fedkit.protocol.segments import ConnectorSpec, SegmentSpec
from fedkit.topology.shaping import Shape, Way

Lines = Mapping[str, Shape]
"""What portals see to, by substrate: delays and losses alone."""
NO_LINES: Lines = {}


def is_able(spec: SegmentSpec, offer: Offer) -> bool:
    """Whether portals of this kit, in the image that they get here, delay and lose frames; raises `UnknownKit`."""
    image = offer.portal_image
    return image is not None and image.delays and kit_named(spec.kit).delays


def lines(spec: SegmentSpec, state: SegmentState) -> Lines:
    """Those of a segment; raises `BadDescription`."""
    if not state.delays:
        return NO_LINES
    times = Counter(one.substrate for connector in spec.connectors if _is_far(connector) for one in connector.crossings)
    found: dict[str, list[Shape]] = {substrate: [] for substrate, count in times.items() if count == 1}
    wiring = read(spec.description)
    for name, plugs in wiring.plugs.items():
        crossing = [plug for plug in plugs if plug.substrate in found]
        shapes = wiring.shapes(name) if crossing else {}
        for plug in crossing:
            found[plug.substrate].append(shapes[plug.address])
    sole = {substrate: shapes[0].lateness for substrate, shapes in found.items() if len(shapes) == 1}
    return {substrate: shape for substrate, shape in sole.items() if shape and _fits(shape.to) and _fits(shape.back)}


def node_shapes(wiring: Wiring, name: str, seen_to: Lines) -> dict[str, Shape]:
    """What is left to a computer's interfaces, by address, where portals see to these."""
    shapes = wiring.shapes(name)
    crossing = {plug.address for plug in wiring.plugs[name] if plug.substrate in seen_to}
    return {address: shape.rates if address in crossing else shape for address, shape in shapes.items()}


def portal_lines(connector: ConnectorSpec, seen_to: Lines) -> dict[int, Shape]:
    """Those of one portal, by tag."""
    crossings = connector.crossings if _is_far(connector) else ()
    return {one.tag: seen_to[one.substrate] for one in crossings if one.substrate in seen_to}


def _is_far(connector: ConnectorSpec) -> bool:
    """Whether it leads to another testbed, and not to somebody's desktop, which nobody waits for."""
    return connector.failure != "ignore"


def _fits(way: Way) -> bool:
    """Whether a portal takes it; with what it refuses the node is told what is wrong."""
    return 0 <= way.delay <= LONGEST_DELAY and 0 <= way.loss <= 1
