"""What counts as the loss of a segment, and what an experiment is called then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from federation_member.experiments.errors import Why
from federation_member.experiments.failing import (
    START_LIMIT,
    Loss,
    breakage,
    failure_action,
    fatal,
    look_by,
    loss,
    nodes_told,
)
from federation_member.experiments.model import Segment, State
from federation_member.experiments.outlook import outlook
from federation_member.orders.model import OrderState, User, new_order
from fedkit.protocol.lending import Instance
from fedkit.protocol.segments import NodeInfo, NodeStatus, PortalInfo, SegmentInfo, SegmentSpec
from tests.support.segments import KEY, connector, piece

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUNS = NodeStatus.RUNNING


def portal(**changes: Any) -> PortalInfo:
    """The portal of the segment."""
    return PortalInfo(connector="fartunnel0", status=RUNS, public_key=KEY, joined=True).model_copy(update=changes)


def node(name: str, status: NodeStatus = RUNS) -> NodeInfo:
    """A node."""
    return NodeInfo(name=name, status=status)


def segment(
    *nodes: NodeInfo,
    portals: tuple[PortalInfo, ...] = (),
    state: OrderState = OrderState.FULFILLED,
    number: int = 0,
    actions: tuple[str, str] = ("fatal", "fatal"),
    started: datetime = NOW,
    version: int = 1,
    **changes: Any,
) -> Segment:
    """Computers a and b with a portal, as a lender tells of them."""
    said = {name: {"failureaction": action} for name, action in zip("ab", actions, strict=True)}
    spec = piece(("a", "b"), connectors=[connector("wire1", active=True)], nodes=said)
    spec = spec.model_copy(update={"testbed": f"t{number}"})
    info = SegmentInfo(version=version, nodes=list(nodes), portals=list(portals))
    order = new_order("id", User("project", "alice"), spec, NOW, batch="batch")
    order = replace(order, state=state, lease_id="lease", member="site", instance=Instance(name="n", segment=info))
    return Segment(number, spec.testbed, "id", "lease", "{}", replace(order, **changes), started)


WELL = (node("a"), node("b"))


@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({}, "tells nothing of its node a"),
        ({"nodes": (node("a"),), "portals": (portal(),)}, "tells nothing of its node b"),
        ({"nodes": (*WELL, node("z")), "portals": (portal(),)}, "a node z that the segment does not have"),
        ({"nodes": (*WELL, node("b")), "portals": (portal(),)}, "one node more than once"),
        ({"nodes": WELL}, "tells nothing of its portal fartunnel0"),
        ({"nodes": WELL, "portals": (portal(connector="west"),)}, "a portal west that the segment does not have"),
        ({"nodes": WELL, "portals": (portal(public_key="ssh-ed25519 nonsense"),)}, "a key that is none"),
        ({"nodes": WELL, "portals": (portal(host_key="ssh-rsa AAAA"),)}, "a key that is none"),
    ],
)
def test_what_cannot_be_is_not_believed(told: dict[str, Any], word: str) -> None:
    found = breakage(segment(*told.get("nodes", ()), portals=told.get("portals", ())), NOW)
    assert found is not None
    assert (found.code, word in found.reason) == (Why.SEGMENT_NONSENSE, True)


def test_who_tells_of_others_nodes_while_it_changes_is_heard_of_its_own_alone() -> None:
    order = segment(*WELL, node("z"), portals=(portal(),)).order
    assert order is not None
    assert isinstance(order.spec, SegmentSpec)
    changing = replace(order, spec=order.spec.model_copy(update={"version": 2}))
    assert [one.name for one in nodes_told(changing)] == ["a", "b"]
    assert nodes_told(None) == []


@pytest.mark.parametrize("version", [0, -1, 2])
def test_a_version_that_nobody_asked_for_excuses_nothing(version: int) -> None:
    odd = segment(*WELL, node("z"), portals=(portal(),), version=version)
    found = breakage(odd, NOW)
    assert found is not None
    assert found.code == Why.SEGMENT_NONSENSE


def changing(*nodes: NodeInfo) -> Segment:
    """One whose lender tells that it is as it was before it was changed."""
    found = segment(*nodes, portals=(portal(),))
    assert found.order is not None
    assert isinstance(found.order.spec, SegmentSpec)
    spec = found.order.spec.model_copy(update={"version": 2})
    return replace(found, order=replace(found.order, spec=spec))


def test_being_changed_excuses_nothing_for_ever() -> None:
    due = look_by(changing(), NOW)
    assert due is not None
    assert breakage(changing(), due - timedelta(seconds=1)) is None
    found = breakage(changing(), due)
    assert found is not None
    assert (found.code, "nothing of its node a" in found.reason) == (Why.SEGMENT_NONSENSE, True)
    assert breakage(changing(*WELL), due) is None  # a node cannot be told of the change; all is there
    assert look_by(changing(*WELL), due) is None
    assert look_by(segment(*WELL, portals=(portal(),)), NOW) is None


def test_what_is_well_is_not_lost() -> None:
    assert loss(segment(*WELL, portals=(portal(),)), NOW) is None
    assert loss(segment(portals=(portal(),), state=OrderState.PENDING), NOW) is None


def test_a_segment_that_does_not_start_is_lost_in_the_end() -> None:
    waiting = segment(portals=(portal(),), state=OrderState.PENDING)
    assert breakage(waiting, NOW + START_LIMIT - timedelta(seconds=1)) is None
    found = breakage(waiting, NOW + START_LIMIT)
    assert found is not None
    assert found.code == Why.NOT_STARTED


@pytest.mark.parametrize(
    ("actions", "whole", "is_lost"),
    [
        (("fatal", "ignore"), "fatal", True),
        (("ignore", "nonfatal"), "nonfatal", False),
        (("nonfatal", "ignore"), "nonfatal", False),
        (("ignore", "ignore"), "ignore", False),
    ],
)
def test_a_segment_is_as_grave_as_its_gravest_node(actions: tuple[str, str], whole: str, is_lost: bool) -> None:
    broken = segment(node("a", NodeStatus.FAILED), node("b"), portals=(portal(),), actions=actions)
    assert failure_action(broken) == whole
    assert (breakage(broken, NOW) is not None) == is_lost


@pytest.mark.parametrize(
    ("actions", "ends"), [(("fatal", "fatal"), True), (("nonfatal", "ignore"), False), (("ignore", "ignore"), False)]
)
def test_what_a_loss_means_for_the_whole(actions: tuple[str, str], ends: bool) -> None:
    closed = segment(state=OrderState.CLOSED, number=1, actions=actions)
    well = segment(*WELL, portals=(portal(),))
    losses = {1: Loss("code", "t1: gone")}
    assert (fatal([well, closed], losses) is not None) == ends
    assert fatal([closed], losses) is not None  # nothing is left
    told = outlook(State.STARTING, [well, closed], losses, overdue=False)
    assert told.state is State.ACTIVE
    assert ("t1: gone" in told.reason) == ("nonfatal" in actions)


def test_what_may_fail_is_waited_for_only_until_the_whole_is_active() -> None:
    well = segment(*WELL, portals=(portal(),))
    coming = segment(state=OrderState.PENDING, number=1, actions=("nonfatal", "nonfatal"))
    assert outlook(State.STARTING, [well, coming], {}, overdue=False).state is State.STARTING
    told = outlook(State.ACTIVE, [well, coming], {}, overdue=False)
    assert (told.state, told.code) == (State.ACTIVE, Why.INCOMPLETE)
    needed = segment(state=OrderState.PENDING, number=1)
    assert outlook(State.ACTIVE, [well, needed], {}, overdue=False).state is State.STARTING
