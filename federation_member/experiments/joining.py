"""What every segment must be told, from what all of them say: a pure function of the orders.

passive end ── its key, and where it is reached ──► active end
active end  ── its key ──► passive end
our server  ── where it lets a passive end be reached that its lender has no port for ──► that passive end
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from federation_member.experiments.model import Segment
from federation_member.experiments.planning import partners
from federation_member.orders.model import Order, OrderState
from fedkit.protocol.segments import (
    Connection,
    ConnectorSpec,
    NodeStatus,
    PortalInfo,
    Relay,
    SegmentGo,
    SegmentInfo,
    SegmentSpec,
)

RELAYED = "portal"  # what our tunnel server calls a relayed portal's port


def spec_of(order: Order) -> SegmentSpec:
    """What was asked for."""
    assert isinstance(order.spec, SegmentSpec)
    return order.spec


def info_of(order: Order | None) -> SegmentInfo:
    """What its lender says of it; nothing yet, or nothing any more."""
    instance = None if order is None else order.instance
    return SegmentInfo() if instance is None or instance.segment is None else instance.segment


def wanted(
    segments: Sequence[Segment],
    asked: Mapping[int, SegmentSpec] | None = None,
    desktops: Mapping[tuple[str, str], str] | None = None,
) -> dict[int, SegmentGo]:
    """How each segment is to be, by its number: started, its portals knowing what is known of their partners.

    One that is not yet like what its order says is told that; of those `asked` for another shape it is to be promised.
    `desktops` are keys of partners that are no segment's portals, by testbed and connector.
    """
    shapes = {number: {"spec": spec, "promise": True} for number, spec in (asked or {}).items()}
    orders = {segment.testbed: segment.order for segment in segments if segment.order is not None}
    ends = partners(spec_of(order) for order in orders.values())
    portals = {
        (testbed, portal.connector): portal for testbed, order in orders.items() for portal in info_of(order).portals
    }
    for end, key in (desktops or {}).items():
        beyond = ("", "/".join(end))  # no testbed's
        ends[end] = beyond
        portals[beyond] = PortalInfo(connector=end[1], status=NodeStatus.RUNNING, public_key=key)
    return {
        segment.number: SegmentGo(
            connections=_connections(segment, spec_of(segment.order).connectors, ends, portals),
            **shapes.get(segment.number, _shape(segment.order)),
        )
        for segment in segments
        if segment.order is not None
    }


def _shape(order: Order) -> dict[str, Any]:
    spec = spec_of(order)
    return {} if info_of(order).version == spec.version else {"spec": spec}


def _connections(
    segment: Segment,
    connectors: Sequence[ConnectorSpec],
    ends: Mapping[tuple[str, str], tuple[str, str]],
    portals: Mapping[tuple[str, str], PortalInfo],
) -> list[Connection]:
    found = []
    for connector in connectors:
        portal = portals.get(ends.get((segment.testbed, connector.name), ("", "")))
        if portal is None or portal.public_key is None:
            continue
        told = Connection(connector=connector.name, peer_key=portal.public_key)
        if connector.active and portal.host and portal.port and portal.host_key:
            told = told.model_copy(update={"host": portal.host, "port": portal.port, "host_key": portal.host_key})
        elif not connector.active:
            told = told.model_copy(update={"relay": _relay(segment, connector.name)})
        found.append(told)
    return found


def _relay(segment: Segment, connector: str) -> Relay | None:
    """Where a portal is to hold a port of ours, once we know."""
    relay = segment.relays.get(connector)
    server = None if relay is None else relay.described
    if server is None:
        return None
    return Relay(host=server.address, port=server.port, host_key=server.host_key, name=RELAYED)


def apart(segments: Sequence[Segment]) -> list[tuple[Segment, str, Segment]]:
    """The portals that are not joined, between segments that run both: whose, which, and to whom it should lead."""
    running = {s.testbed: s for s in segments if s.order is not None and s.order.state is OrderState.FULFILLED}
    missing = []
    for segment in running.values():
        assert segment.order is not None
        joined = {portal.connector for portal in info_of(segment.order).portals if portal.joined}
        missing += [
            (segment, connector.name, running[connector.peer])
            for connector in spec_of(segment.order).connectors
            if connector.peer in running and connector.name not in joined
        ]
    return missing
