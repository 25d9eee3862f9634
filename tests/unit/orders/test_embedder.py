"""What a segment is made of, and what is said of it: pure functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from federation_member.orders.leases import Lease
from federation_member.orders.segments.errors import UnusableSegment
from federation_member.orders.segments.plan import Child, check, lent_kinds, node_config, plan
from federation_member.orders.segments.state import STATE, SegmentState, gone
from federation_member.orders.segments.summary import Summary, summarize
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import ComputeSpec, Flavour, Image, Instance, LeaseState, NetworkSpec, Offer, Power, Tunnel
from fedkit.protocol.segments import Connection, CrossingSpec, NodeStatus, Relay, Route, SegmentGo, SegmentSpec
from fedkit.topology.errors import BadDescription
from tests.support.segments import KEY, connector, piece
from tests.unit.orders.examples import START

SMALL = Flavour(name="small", vcpu=1, ram_mb=512, disk_gb=1)
OFFER = Offer(flavours=[SMALL], images=[Image(name="debian"), Image(name="ubuntu", portal=True)])
WHERE = {"host": "tunnel.test", "port": 20001, "host_key": KEY}


def started(spec: SegmentSpec, *connections: Connection) -> SegmentState:
    """The state of a segment that was started."""
    return gone(spec, SegmentState.begin(spec), SegmentGo(connections=list(connections)))


def wanted(spec: SegmentSpec, *connections: Connection) -> dict[str, Child]:
    """The children of a segment that was started, by part."""
    return {child.part: child for child in plan(spec, started(spec, *connections))}


def machine(spec: SegmentSpec, part: str) -> ComputeSpec:
    """What a node or portal becomes."""
    made = wanted(spec)[part].make(OFFER)
    assert isinstance(made, ComputeSpec)
    return made


def network(spec: SegmentSpec, part: str) -> NetworkSpec:
    """What a substrate becomes."""
    made = wanted(spec)[part].make(OFFER)
    assert isinstance(made, NetworkSpec)
    return made


def lease(child: Child, **changes: object) -> Lease:
    """A running lease of a child."""
    running = Lease(
        id=child.id,
        borrower=Peer("a" * 40, "fm.site-a.test"),
        project="project",
        user="alice",
        account="federation",
        spec=child.make(OFFER),
        flavour=SMALL if child.part.startswith(("node", "portal")) else None,
        state=LeaseState.RUNNING,
        code="",
        reason="",
        revision=1,
        created=START,
        changed=START,
        expires=START + timedelta(minutes=10),
        due=None,
        instance=Instance(name="x", user="fed", host_keys=[KEY]),
        tunnel=None,
        tunnels=(),
        parent="p",
        part=child.part,
    )
    return replace(running, **changes)  # type: ignore[arg-type]


def told(spec: SegmentSpec, state: SegmentState, changes: dict[str, dict[str, object]] | None = None) -> Summary:
    """The summary of a segment of which all runs, but for these `changes` by part."""
    children = plan(spec, state)
    leases = {child.id: lease(child, **(changes or {}).get(child.part, {})) for child in children}
    return summarize(spec, state, children, leases)


def test_the_same_part_has_the_same_id_and_other_segments_other_ones() -> None:
    spec = piece(("a", "b"))
    state = started(spec)
    again = STATE.validate_json(STATE.dump_json(state))
    assert [child.id for child in plan(spec, state)] == [child.id for child in plan(spec, again)]
    assert {child.id for child in plan(spec, state)}.isdisjoint(child.id for child in wanted(spec).values())


def test_images_and_flavours_are_those_asked_for_where_they_are_on_offer() -> None:
    spec = piece(("a", "b"), nodes={"a": {"type": "small"}, "b": {"type": "pc3000"}})
    assert (machine(spec, "node/a").flavour, machine(spec, "node/b").flavour) == ("small", "small")
    assert machine(spec, "node/a").image == "debian"


def test_a_member_without_images_embeds_nothing() -> None:
    child = wanted(piece(("a", "b")))["node/a"]
    with pytest.raises(UnusableSegment, match="no image"):
        child.make(Offer(flavours=[SMALL]))


def test_nodes_administer_their_networks_and_routed_ones_pass_everything() -> None:
    routes = {"a": [Route(destination="10.1.2.0/24", via="10.1.1.3")]}
    spec = piece(("a", "b"), ("b", "c"), routes=routes)
    assert "10.1.2.0/24 10.1.1.3" in machine(spec, "node/a").user_data
    assert "FORWARDS=yes" in machine(spec, "node/b").user_data
    assert "FORWARDS=''" in machine(spec, "node/c").user_data
    assert all(machine(spec, f"node/{name}").carries_frames for name in "abc")
    assert network(spec, "network/wire1").verbatim


@pytest.mark.parametrize(
    ("name", "label"), [("A_node", "a-node"), ("-", "part"), ("(x)", "x"), ("n." + "x" * 60, None)]
)
def test_names_of_nodes_become_names_of_leases(name: str, label: str | None) -> None:
    assert machine(piece((name, "b")), f"node/{name}").name == (label or "n-" + "x" * 60)


@pytest.mark.parametrize("name", ["two words", "", ".x", "$(id)", "n" * 65])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises((UnusableSegment, BadDescription), match="name"):
        check(piece((name, "b"), hosts=[]), OFFER)


def test_what_crosses_must_be_there() -> None:
    with pytest.raises(UnusableSegment, match="wire9"):
        check(piece(("a", "b"), connectors=[connector("wire9", active=True)]), OFFER)
    with pytest.raises(UnusableSegment, match="called a"):
        check(piece(("a", "b"), connectors=[connector("wire1", active=True, name="a")]), OFFER)


def test_portals_wait_for_what_they_must_know() -> None:
    both = [connector("wire1", active=True, name="north"), connector("wire1", active=False, name="south")]
    spec = piece(("a", "b"), connectors=both)
    keys = [Connection(connector=name, peer_key=KEY) for name in ("north", "south")]
    assert "portal/south" in wanted(spec, *keys)
    assert "portal/north" not in wanted(spec, *keys)
    assert "portal/north" in wanted(spec, Connection(connector="north", peer_key=KEY, **WHERE))  # type: ignore[arg-type]


def test_only_a_portal_whose_connection_changed_is_another_one() -> None:
    both = [connector("wire1", active=True, name="north"), connector("wire1", active=False, name="south")]
    spec = piece(("a", "b"), connectors=both)
    north = Connection(connector="north", peer_key=KEY, **WHERE)  # type: ignore[arg-type]
    south = Connection(connector="south", peer_key=KEY)
    first = started(spec, north, south)
    moved = gone(spec, first, SegmentGo(connections=[north.model_copy(update={"port": 1}), south]))
    back = gone(spec, moved, SegmentGo(connections=[north, south.model_copy(update={"host": "elsewhere"})]))
    ids = [{child.part: child.id for child in plan(spec, state)} for state in (first, moved, back)]
    assert len({one["portal/north"] for one in ids}) == 3
    assert len({one["portal/south"] for one in ids}) == 1
    assert gone(spec, first, SegmentGo(start=False, connections=[south, north])) == first
    with pytest.raises(UnusableSegment, match="no connector west"):
        gone(spec, first, SegmentGo(connections=[Connection(connector="west", peer_key=KEY)]))


def test_a_passive_portal_is_reached_by_its_tunnel() -> None:
    spec = piece(("a", "b"), connectors=[connector("wire1", active=False)])
    state = started(spec, Connection(connector="fartunnel0", peer_key=KEY))
    (portal,) = told(spec, state).info.portals
    assert (portal.status, portal.joined, portal.host, portal.host_key) == (NodeStatus.RUNNING, False, None, KEY)
    tunnels = tuple(Tunnel(name=name, host="t.test", port=port, up=True) for name, port in (("ssh", 1), ("portal", 2)))
    (portal,) = told(spec, state, {"portal/fartunnel0": {"tunnels": tunnels}}).info.portals
    assert (portal.joined, portal.host, portal.port) == (True, "t.test", 2)
    assert portal.public_key == state.public_key("fartunnel0")


def test_without_ports_a_portal_waits_for_its_relay_and_tells_that_it_does() -> None:
    spec = piece(("a",), connectors=[connector("wire1", active=False).model_copy(update={"relay": True})])
    relay = Relay(host="192.0.2.7", port=2222, host_key=KEY, name="portal")
    told, relayed = (Connection(connector="fartunnel0", peer_key=KEY, relay=one) for one in (None, relay))
    state = SegmentState.begin(spec, relayed=True)
    waits, runs = (gone(spec, state, SegmentGo(connections=[one])) for one in (told, relayed))
    assert "portal/fartunnel0" not in {child.part for child in plan(spec, waits)}
    portal = {child.part: child for child in plan(spec, runs)}["portal/fartunnel0"]
    assert "RELAY_HOST=192.0.2.7" in str(portal.make(OFFER))
    info = summarize(spec, runs, [portal], {portal.id: lease(portal)}).info
    assert (info.relayed, info.portals[0].host, info.portals[0].joined) == (True, None, True)
    with_ports = gone(spec, SegmentState.begin(spec), SegmentGo(connections=[relayed]))
    assert with_ports.connections["fartunnel0"] == told


def test_the_whole_runs_when_all_of_it_does() -> None:
    spec = piece(("a", "b"), nodes={"b": {"failureaction": "ignore"}})
    state = started(spec)
    assert told(spec, state).runs
    assert not told(spec, state, {"node/a": {"state": LeaseState.ACCEPTED}}).runs
    half = told(spec, state, {"node/b": {"state": LeaseState.FAILED, "reason": "dead"}})
    assert (half.runs, half.failed, half.sizes.vcpu) == (True, None, 1)
    assert [node.status for node in half.info.nodes] == [NodeStatus.RUNNING, NodeStatus.FAILED]
    worse = told(spec, state, {"node/a": {"state": LeaseState.FAILING, "reason": "dead"}})
    assert worse.failed is not None
    assert worse.failed.part == "node/a"
    stopped = told(spec, state, {"node/a": {"instance": Instance(name="x", power=Power.STOPPED)}})
    assert (stopped.info.nodes[0].status, stopped.sizes.vcpu, stopped.sizes.disk_gb) == (NodeStatus.STOPPED, 1, 2)


def test_segments_are_lent_where_their_parts_are() -> None:
    assert "segment" in lent_kinds({"compute", "network"})
    assert "segment" not in lent_kinds({"compute"})


def test_two_crossings_are_two_networks_of_one_portal_in_their_order() -> None:
    spec = piece(("a", "b"), ("a", "b"), connectors=[connector("wire2", "wire1", active=False)])
    children = wanted(spec, Connection(connector="fartunnel0", peer_key=KEY))
    made = children["portal/fartunnel0"].make(OFFER)
    assert isinstance(made, ComputeSpec)
    assert made.networks == [children["network/wire2"].id, children["network/wire1"].id]
    assert "TAGS='10 11'" in made.user_data
    assert [crossing.tag for crossing in spec.connectors[0].crossings] == [10, 11]
    assert isinstance(spec.connectors[0].crossings[0], CrossingSpec)


@pytest.mark.parametrize(
    ("routing", "networks", "forwards"),
    [
        ("Session", ["10.1.1.0/24", "10.1.2.0/24"], True),
        ("ospf", ["10.1.1.0/24", "10.1.2.0/24"], True),
        ("Static", [], True),
        ("Manual", [], True),
        (None, [], False),
    ],
)
def test_routing_is_as_described(routing: str | None, networks: list[str], *, forwards: bool) -> None:
    """Daemons speak on the networks of the experiment; who is between others forwards, unless nothing is said of routing at all."""
    routes = {"a": [Route(destination="10.1.2.0/24", via="10.1.1.3")]} if routing not in (None, "Manual") else {}
    spec = piece(("a", "b"), ("b", "c"), routing=routing, routes=routes)
    config = node_config(spec, "b")
    assert (config.networks, config.forwards) == (networks, forwards)
    assert node_config(spec, "a").forwards is False
