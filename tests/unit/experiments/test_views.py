"""Views: over any topology, nothing of another party is in what one is shown, whatever lenders and the log say."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from federation_member.experiments.model import (
    Event,
    Experiment,
    Extension,
    NewExperiment,
    Party,
    Segment,
    State,
    Whole,
)
from federation_member.experiments.planning import plan
from federation_member.experiments.views import UNTOLD, View, sides_of
from federation_member.orders.model import Order, OrderState, User, new_order
from federation_member.web.experiment_views import event_view, whole_view
from fedkit.protocol.lending import Instance, Tunnel
from fedkit.protocol.segments import NodeInfo, NodeStatus, PortalInfo, SegmentInfo
from fedkit.services.arrange import Arranged
from fedkit.topology import topdl
from fedkit.topology.model import Attribute, Service, Topology
from tests.support.segments import wired

NODES = [f"node{number}" for number in range(7)]
PARTIES = {
    "red": Party(testbeds=["one/red", "two"]),
    "blue": Party(testbeds=["one/blue"], ssh_keys=["ssh-ed25519 AAAA blue"]),
}
SIDES = sides_of(PARTIES)
PLACES = ["one/red", "two", "one/blue", "one", "hall"]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
EVERYBODY = " ".join([*NODES, *PLACES, "10.1.1.2"])  # what lenders may say
wires = st.lists(st.sets(st.sampled_from(NODES), min_size=2, max_size=4).map(sorted), min_size=1, max_size=7)
states = st.lists(st.sampled_from([State.ALLOCATING, State.STARTING, State.ACTIVE]), max_size=6)
abouts = st.one_of(st.none(), st.lists(st.sampled_from(PLACES), max_size=2, unique=True).map(tuple))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Computers at testbeds, some at each; no wire joins two parties."""
    at = dict(zip(NODES, [*PLACES, *draw(st.tuples(*[st.sampled_from(["one", "hall"])] * 2))], strict=True))
    on: list[tuple[str, ...]] = [("node0", "node3"), ("node1", "node4"), ("node2", "node3")]
    for members in draw(wires):
        parties = [SIDES.of(at[name]) for name in members]
        one = next((party for party in parties if party), None)
        kept = tuple(name for name, party in zip(members, parties, strict=True) if party in {None, one})
        on += [kept] if len(kept) > 1 else []
    told = {name: {"testbed": at[name]} for members in on for name in members}
    hiding = Service("hide_hosts", ("hall",), attributes=(Attribute("hosts", "node4"),))
    return replace(wired(*on, **told), routing="Static", services=(hiding,))


def running(topology: Topology) -> Whole:
    """An experiment whose lenders talk too much."""
    new = NewExperiment(name="mine", description="", parties=PARTIES)
    owner = User("project", "alice")
    segments = []
    for number, piece in enumerate(plan(new, Arranged(topology), [])):
        names = [computer.name for computer in topdl.read(piece.spec.description.encode()).computers]
        portals = [c.name for c in piece.spec.connectors]
        talk: dict[str, Any] = {"reason": EVERYBODY, "host": "tunnel.test", "port": 2000 + number}
        failed = [NodeInfo(name=name, status=NodeStatus.FAILED, address=f"172.16.{number}.9", **talk) for name in names]
        joined = [PortalInfo(connector=name, status=NodeStatus.RUNNING, joined=True, **talk) for name in portals]
        info = SegmentInfo(nodes=failed, portals=joined)
        order = new_order(f"order{number}", owner, piece.spec, NOW, batch="x")
        instance, tunnels = Instance(name="x", segment=info), (Tunnel(name="x", host=EVERYBODY, port=1, up=True),)
        order = replace(order, state=OrderState.FULFILLED, reason=EVERYBODY, instance=instance, tunnels=tunnels)
        told = f"told {EVERYBODY}"
        segments.append(Segment(number, piece.spec.testbed, order.id, "lease", told, order, reason=EVERYBODY))
    return Whole(experiment_of(topology), tuple(segments))


def experiment_of(topology: Topology) -> Experiment:
    """One that runs, for reasons that are for few."""
    return Experiment(
        id="x",
        name="mine",
        owner=User("project", "alice"),
        state=State.ACTIVE,
        code="a.code",
        reason=EVERYBODY,
        fedid="0" * 40,
        description=topdl.write(topology).decode(),
        routing="Static",
        services=("hide_hosts:hall::hosts=node4",) if topology.services else (),
        portals=1,
        created=NOW,
        changed=NOW,
        valid_until=None,
        warned=False,
        events=1,
        parties=PARTIES,
        extension=Extension(
            description=EVERYBODY, routing=None, services=(EVERYBODY,), specs={}, before={}, added=(), since=NOW
        ),
    )


@given(topologies(), st.sampled_from(["red", "blue"]))
def test_nothing_of_another_party_is_in_a_whole(topology: Topology, party: str) -> None:
    others = [computer for computer in topology.computers if SIDES.of(computer.testbed) not in {None, party}]
    their_wires = {name for computer in others for interface in computer.interfaces for name in interface.substrates}
    secret = {computer.name for computer in others} | {str(computer.testbed) for computer in others} | their_wires
    secret |= {str(i.ip4) for wire in their_wires for _, i in topology.ends[wire]}
    secret |= {"node4"}  # at a shared testbed that hides it
    secret |= {f"{re.sub('[^a-z]', '-', str(computer.testbed))}tunnel0" for computer in others}
    seen = View(frozenset({party})).whole(running(topology))
    own = [segment for segment in seen.segments if SIDES.of(segment.testbed) == party]
    quiet = replace(seen, segments=tuple(_quiet(one) if one in own else one for one in seen.segments))
    for text in (repr(quiet), whole_view(quiet).model_dump_json()):
        assert {word for word in secret if re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", text)} == set()
    assert {segment.testbed for segment in own} == {
        computer.testbed for computer in topology.computers if SIDES.of(computer.testbed) == party
    }


def _quiet(segment: Segment) -> Segment:
    """One's own piece without what its lender said: that is one's own to hear."""
    assert segment.order is not None
    assert segment.order.instance is not None
    info = segment.order.instance.segment
    assert info is not None
    nodes = [node.model_copy(update={"reason": ""}) for node in info.nodes]
    portals = [portal.model_copy(update={"reason": ""}) for portal in info.portals]
    instance = Instance(name="x", segment=SegmentInfo(nodes=nodes, portals=portals))
    order = replace(segment.order, reason="", instance=instance, tunnels=())
    return replace(segment, told=None, reason="", order=order)


@given(topologies())
def test_who_has_the_roles_of_all_parties_sees_all_testbeds(topology: Topology) -> None:
    whole = running(topology)
    seen = View(frozenset(PARTIES)).whole(whole)
    assert [segment.testbed for segment in seen.segments] == [segment.testbed for segment in whole.segments]
    assert View().whole(whole) is whole
    operated = View(frozenset({"red"})).operated(whole)
    assert {SIDES.of(segment.testbed) for segment in operated.segments} == {"red"}


@given(states, st.data(), st.sampled_from(["red", "blue"]))
def test_a_line_is_told_if_it_is_about_nobody_else(went: list[State], data: st.DataObject, party: str) -> None:
    lines = [Event(n, NOW, state, "a.code", EVERYBODY, data.draw(abouts)) for n, state in enumerate(went, 1)]
    told = View(frozenset({party})).events(experiment_of(Topology()), lines)
    for line in told:
        mine = line.about is not None and all(SIDES.of(place) == party for place in line.about)
        assert (line.reason, line.code) == ((EVERYBODY, "a.code") if mine else (UNTOLD, ""))
        assert mine or line.number == 1 or went[line.number - 2] is not line.state
        assert event_view(line).number in range(1, len(lines) + 1)
    assert [line for line in lines if line.about == ()] == [line for line in told if line.about == ()]
    steps = [state for n, state in enumerate(went) if n == 0 or went[n - 1] is not state]
    shown = [line.state for n, line in enumerate(told) if n == 0 or told[n - 1].state is not line.state]
    assert shown == steps


def test_whoever_adds_a_field_decides_who_sees_it() -> None:
    """A view leaves out these fields, or makes them anew, or has looked at them: a new one belongs into `views.py` and then here."""
    experiment = (
        "id name owner state code reason fedid description routing services portals created changed valid_until"
    )
    order = (
        "id owner type state reason spec location batch valid_from valid_until lease_seconds created changed revision"
    )
    order += " member member_fedid lease_id lease_expires instance tunnels code handle wishes rules used_by"
    assert {one.name for one in fields(Experiment)} == {
        *experiment.split(),
        "warned",
        "events",
        "parties",
        "about",
        "extension",
        "kit",
    }
    assert {one.name for one in fields(Order)} == set(order.split())
