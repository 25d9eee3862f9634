"""When a piece is lost, and what follows from it: pure functions of the segments.

    nobody lends it, its lender ended it, does not start it, tells what cannot be ─► lost
    lost ─► had elsewhere, if anybody may lend it ─► else its failure action: fatal ends all, nonfatal is reported, ignore is silent

A segment's failure action is the gravest of its computers'. A lender decides for itself what the failure of one node does to its
segment; what it says all the same is checked here, because it may be wrong or lie.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from federation_member.experiments.errors import Why
from federation_member.experiments.joining import info_of, spec_of
from federation_member.experiments.model import Segment
from federation_member.orders.model import Order, OrderState
from federation_member.orders.ssh_keys import is_public
from fedkit.protocol.segments import NodeInfo, NodeStatus, PortalInfo
from fedkit.topology import topdl
from fedkit.topology.model import FailureAction

START_LIMIT = timedelta(hours=1)  # until a segment that was told to start runs; its lender gives up single nodes before
CHANGE_LIMIT = START_LIMIT + timedelta(minutes=5)  # that being changed excuses anything; extensions end before
GOING = frozenset({OrderState.DELETING, OrderState.DELETED})
KEPT = 64  # descriptions whose failure actions are remembered


class Loss(NamedTuple):
    """Why a segment is lost, and of which testbeds that tells."""

    code: str
    reason: str
    about: tuple[str, ...] = ()


class Said(NamedTuple):
    """A sentence about what is missing at a testbed."""

    sentence: str
    testbed: str


def failure_action(segment: Segment) -> FailureAction:
    """What its loss means for the experiment: the gravest of what its computers' would."""
    said = set() if segment.order is None else set(_actions(spec_of(segment.order).description).values())
    if "fatal" in said or not said:
        return "fatal"
    return "nonfatal" if "nonfatal" in said else "ignore"


@lru_cache(maxsize=KEPT)
def _actions(description: str) -> Mapping[str, FailureAction]:
    """The failure action of each computer of a piece."""
    return {computer.name: computer.failure_action for computer in topdl.read(description.encode()).computers}


def loss(segment: Segment, now: datetime) -> Loss | None:
    """By what a segment is lost; None while it runs or may yet do so."""
    found, order = breakage(segment, now), segment.order
    if segment.code:
        found = Loss(segment.code, segment.reason)
    elif order is None or order.state in GOING:
        found = Loss(Why.SEGMENT_GIVEN_BACK, "its order was deleted")
    elif order.state is OrderState.OPEN and order.lease_id is None and order.code:
        found = Loss(order.code, order.reason)
    return None if found is None else Loss(found.code, f"{segment.testbed}: {found.reason}", (segment.testbed,))


def breakage(segment: Segment, now: datetime) -> Loss | None:
    """By what a segment that somebody lent is lost; it may be had elsewhere."""
    order = segment.order
    if order is None or segment.code:
        return None
    if order.state is OrderState.CLOSED:
        return Loss(order.code or Why.SEGMENT_LOST, order.reason)
    if order.state is OrderState.PENDING and segment.started is not None and start_by(segment.started) <= now:
        return Loss(Why.NOT_STARTED, f"{order.member} did not start it within {START_LIMIT}: {order.reason}")
    if order.state in (OrderState.PENDING, OrderState.FULFILLED):
        problem = _lie(order, segment.started, now) or _failure(order)
        return None if problem is None else problem._replace(reason=f"{order.member} {problem.reason}")
    return None


def start_by(started: datetime) -> datetime:
    """Until when a segment must run that was told to start then."""
    return started + START_LIMIT


def look_by(segment: Segment, now: datetime) -> datetime | None:
    """When it is to be looked at, though nothing is heard of it: it does not run yet, or is not yet as it is to become."""
    order = segment.order
    if order is None or segment.started is None:
        return None
    if order.state is OrderState.PENDING:
        return start_by(segment.started)
    excused_until = segment.started + CHANGE_LIMIT
    is_excused = info_of(order).version < spec_of(order).version and excused_until > now
    return excused_until if order.state is OrderState.FULFILLED and is_excused else None


def _lie(order: Order, started: datetime | None, now: datetime) -> Loss | None:
    """What the lender says of a segment and cannot be.

    One that is being changed may be as it was, for a while. Then it has all that it is to have, though it may never say so: a
    node that its user has stopped cannot be told what the change means for it.
    """
    info, spec = info_of(order), spec_of(order)
    if not 1 <= info.version <= spec.version:
        return Loss(Why.SEGMENT_NONSENSE, f"tells of a version {info.version} that nobody asked for")
    if info.version < spec.version and (started is None or started + CHANGE_LIMIT > now):
        wrong = _bad_key(info.portals)
        return None if wrong is None else Loss(Why.SEGMENT_NONSENSE, wrong)
    runs = order.state is OrderState.FULFILLED
    wrong = (
        _mismatch("node", [node.name for node in info.nodes], list(_actions(spec.description)), complete=runs)
        or _mismatch(
            "portal", [one.connector for one in info.portals], [c.name for c in spec.connectors], complete=runs
        )
        or _bad_key(info.portals)
    )
    return None if wrong is None else Loss(Why.SEGMENT_NONSENSE, wrong)


def _mismatch(noun: str, told: Sequence[str], wanted: Sequence[str], *, complete: bool) -> str | None:
    unknown = sorted(set(told) - set(wanted))
    if unknown:
        return f"tells of a {noun} {unknown[0]} that the segment does not have"
    if len(told) > len(set(told)):
        return f"tells of one {noun} more than once"
    missing = sorted(set(wanted) - set(told)) if complete else []
    return f"says that the segment runs, and tells nothing of its {noun} {missing[0]}" if missing else None


def _bad_key(portals: Iterable[PortalInfo]) -> str | None:
    for portal in portals:
        if any(key is not None and not is_public(key) for key in (portal.public_key, portal.host_key)):
            return f"tells of the portal {portal.connector} a key that is none"
    return None


def _failure(order: Order) -> Loss | None:
    """A node by whose failure its segment is lost, though its lender keeps it running."""
    fatal = [node for node in failed_nodes(order) if _action(order, node) == "fatal"]
    return Loss(Why.SEGMENT_LOST, f"tells that {fatal[0].name} failed: {fatal[0].reason}") if fatal else None


def nodes_told(order: Order | None) -> list[NodeInfo]:
    """What its lender tells of nodes that the segment has; of others' it may tell while it changes."""
    has = () if order is None else _actions(spec_of(order).description)
    return [node for node in info_of(order).nodes if node.name in has]


def failed_nodes(order: Order) -> list[NodeInfo]:
    """Nodes that failed, but for those whose failure its experimenter wants to ignore."""
    failed = [node for node in info_of(order).nodes if node.status is NodeStatus.FAILED]
    return [node for node in failed if _action(order, node) != "ignore"]


def _action(order: Order, node: NodeInfo) -> FailureAction:
    return _actions(spec_of(order).description).get(node.name, "fatal")


def fatal(segments: Sequence[Segment], losses: Mapping[int, Loss]) -> Loss | None:
    """The loss by which the experiment ends: that of a fatal segment, or the last when nothing is left."""
    grave = [losses[s.number] for s in segments if s.number in losses and failure_action(s) == "fatal"]
    if grave:
        return grave[0]
    return losses[segments[-1].number] if len(losses) == len(segments) else None


def reports(segments: Sequence[Segment], losses: Mapping[int, Loss]) -> list[Said]:
    """What is to be said of each part that is missing."""
    said = []
    for segment in segments:
        action = failure_action(segment)
        order = segment.order
        if segment.number in losses and action == "nonfatal":
            said.append(Said(f"without {losses[segment.number].reason}", segment.testbed))
        elif segment.number in losses or order is None:
            continue
        elif order.state is OrderState.FULFILLED:
            said += [Said(f"{node.name} failed: {node.reason}", segment.testbed) for node in failed_nodes(order)]
        elif action == "nonfatal":
            said.append(Said(f"without {segment.testbed}: {order.reason}", segment.testbed))
    return said
