"""The ports by which the parts of a hosted segment are reached, at the tunnel server that its lender uses."""

from __future__ import annotations

import hashlib

from federation_member.orders.segments.errors import UnusableSegment
from federation_member.orders.segments.wiring import read
from fedkit.protocol.segments import SegmentSpec
from fedkit.protocol.tunnel import PORTS_LIMIT


def way_to(name: str) -> str:
    """What the port of a node or portal is called, in letters that a tunnel server takes."""
    return "w" + hashlib.sha256(name.encode()).hexdigest()[:20]


def ways(spec: SegmentSpec) -> list[str]:
    """The names of all ports that a segment needs; raises `UnusableSegment` for too many."""
    waiting = [connector.name for connector in spec.connectors if not connector.active]
    names = [*read(spec.description).computers, *waiting]
    if len(names) > PORTS_LIMIT:
        raise UnusableSegment(f"A piece has at most {PORTS_LIMIT} nodes and portals here; this one has {len(names)}.")
    return [way_to(name) for name in names]
