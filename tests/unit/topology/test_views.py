"""Parties: laws of what each sees and reaches, over any topology; shared computers forward as the node script makes them."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fedkit.topology import topdl
from fedkit.topology.json_form import topology_as_json
from fedkit.topology.model import Attribute, Computer, Service, Topology
from fedkit.topology.picture import draw
from fedkit.topology.services import BadService
from fedkit.topology.views import PartiesMeet, Reach, Sides, check_sides, hidden_hosts, reach_of, seen_by
from tests.support.segments import wired

NODES = [f"node{number}" for number in range(8)]
SIDES = Sides((("one/attack", "attacker"), ("two", "attacker"), ("one/defend", "defender")))
PLACES = ["one/attack", "two", "one/defend", "one", "hall", "yard"]
PARTIES = ["attacker", "defender"]
wires = st.lists(st.sets(st.sampled_from(NODES), min_size=2, max_size=4).map(sorted), min_size=1, max_size=9)
places = st.lists(st.sampled_from(PLACES), min_size=len(NODES), max_size=len(NODES))


def topology_of(on: list[list[str]], at: list[str]) -> Topology:
    """Computers at testbeds, whose start commands name everybody; no wire joins two parties."""
    where = dict(zip(NODES, at, strict=True))
    used = {name for members in on for name in members}
    told = {name: {"testbed": where[name], "startup": f"ping {' '.join(NODES)}"} for name in used}
    topology = replace(wired(*map(tuple, on), **told), routing="Static")
    assume(all(len(parties) < 2 for parties in SIDES.of_substrates(topology).values()))
    return topology


def party_of(topology: Topology) -> dict[str, str | None]:
    """Of each computer."""
    return {computer.name: SIDES.of(computer.testbed) for computer in topology.computers}


# What one sees


@given(wires, places, st.sampled_from(PARTIES))
def test_nothing_of_the_other_party_is_seen(on: list[list[str]], at: list[str], party: str) -> None:
    topology = topology_of(on, at)
    services = tuple(Service("project_export", (place,), tuple(PLACES)) for place in PLACES)
    topology = replace(topology, services=services, attributes=(Attribute("note", " ".join(NODES)),))
    seen = seen_by(topology, SIDES, {party})
    others = [computer for computer in topology.computers if SIDES.of(computer.testbed) not in {None, party}]
    their_wires = {name for computer in others for interface in computer.interfaces for name in interface.substrates}
    secret = {computer.name for computer in others} | {str(computer.testbed) for computer in others} | their_wires
    secret |= {str(i.ip4) for wire in their_wires for _, i in topology.ends[wire]}
    own = [computer for computer in seen.computers if SIDES.of(computer.testbed) == party]
    quiet = replace(seen, elements=tuple(c.with_attributes({"startup": None}) for c in own) + _shared(seen))
    for text in (json.dumps(topology_as_json(quiet)), topdl.write(quiet).decode(), draw(quiet) if own else ""):
        assert {word for word in secret if _is_in(word, text)} == set()


def _shared(seen: Topology) -> tuple[Computer, ...]:
    return tuple(computer for computer in seen.computers if SIDES.of(computer.testbed) is None)


def _is_in(word: str, text: str) -> bool:
    """Whether a name stands there as a whole: `one` is another than `one/attack`."""
    return any(f"{a}{word}{b}" in text for a in '"<> :,;(' for b in '"<> :,;)')


@given(wires, places, st.sampled_from(PARTIES))
def test_what_is_ones_own_is_seen_whole_and_of_shared_computers_who_they_are(
    on: list[list[str]], at: list[str], party: str
) -> None:
    topology = topology_of(on, at)
    seen = {computer.name: computer for computer in seen_by(topology, SIDES, {party}).computers}
    for computer in topology.computers:
        if SIDES.of(computer.testbed) == party:
            assert seen[computer.name] == computer
        elif SIDES.of(computer.testbed) is None:
            assert seen[computer.name].testbed == computer.testbed
            assert seen[computer.name].startup is None


def test_hidden_hosts_are_seen_by_their_own_party_alone() -> None:
    at = {"a": "one/attack", "r": "hall", "s": "hall"}
    topology = wired(("a", "r"), ("r", "s"), **{name: {"testbed": place} for name, place in at.items()})
    hiding = Service("hide_hosts", ("hall",), attributes=(Attribute("hosts", "s"),))
    assert {c.name for c in seen_by(topology, SIDES, {"attacker"}).computers} == {"a", "r", "s"}
    assert {c.name for c in seen_by(replace(topology, services=(hiding,)), SIDES, {"attacker"}).computers} == {"a", "r"}


@pytest.mark.parametrize(("exporter", "hosts"), [("hall", "nobody"), ("hall", "a"), ("hall", "")])
def test_hosts_to_hide_must_be_there(exporter: str, hosts: str) -> None:
    topology = wired(("a", "s"), a={"testbed": "one"}, s={"testbed": "hall"})
    hiding = Service("hide_hosts", (exporter,), attributes=(Attribute("hosts", hosts),))
    with pytest.raises(BadService, match="hide_hosts"):
        hidden_hosts(replace(topology, services=(hiding,)))


# What cannot be kept apart


def test_a_wire_of_two_parties_is_refused() -> None:
    topology = wired(("a", "r", "d"), a={"testbed": "two"}, r={"testbed": "hall"}, d={"testbed": "one/defend"})
    with pytest.raises(PartiesMeet, match="wire1 joins a of attacker, d of defender directly; put a node between"):
        check_sides(topology, SIDES)


def test_parties_have_no_network_in_common() -> None:
    topology = wired(("a", "r"), ("d", "r"), a={"testbed": "two"}, r={"testbed": "hall"}, d={"testbed": "one/defend"})
    check_sides(topology, SIDES)
    wide = {"ip4_netmask": "255.255.0.0"}
    elements = tuple(
        replace(c, interfaces=tuple(i.with_attributes(wide) for i in c.interfaces)) for c in topology.computers
    )
    with pytest.raises(PartiesMeet, match=r"one network, 10\.1\.0\.0/16"):
        check_sides(replace(topology, elements=elements), SIDES)


@pytest.mark.parametrize(
    ("services", "is_refused"),
    [
        ([("local_seer_control", "two", ""), ("local_seer_control", "hall", "")], False),
        ([("local_seer_control", "hall", ""), ("seer_master", "hall", "")], False),
        ([("local_seer_control", "hall", ""), ("local_seer_control", "two", ""), ("seer_master", "hall", "two")], True),
        ([("local_seer_control", "hall", ""), ("local_seer_control", "two", ""), ("seer_master", "two", "hall")], True),
        ([("local_seer_control", "hall", ""), ("local_seer_control", "two", ""), ("seer_master", "hall", "")], True),
        ([("local_seer_control", "one", ""), ("seer_master", "one", "")], True),
    ],
)
def test_no_key_that_commands_shared_nodes_is_a_partys(services: list[tuple[str, str, str]], is_refused: bool) -> None:
    asked = tuple(Service(name, (one,), tuple(filter(None, [other]))) for name, one, other in services)
    at = {"a": {"testbed": "two"}, "r": {"testbed": "hall"}, "d": {"testbed": "one/defend"}, "s": {"testbed": "one"}}
    topology = replace(wired(("a", "r"), ("r", "d"), ("r", "s"), **at), services=asked)
    with pytest.raises(PartiesMeet, match="seer_master") if is_refused else nullcontext():
        check_sides(topology, SIDES)


@pytest.mark.parametrize(
    ("exporter", "importers", "attributes", "is_refused"),
    [
        ("two", ("one/attack", "hall"), (), False),
        ("hall", ("one/attack", "one/defend"), (), False),
        ("two", ("one/defend",), (), True),
        ("one/defend", (), (Attribute("importall", "yes"),), True),
    ],
)
def test_what_one_party_exports_is_not_for_the_other(
    exporter: str, importers: tuple[str, ...], attributes: tuple[Attribute, ...], is_refused: bool
) -> None:
    service = Service("project_export", (exporter,), importers, attributes=attributes)
    topology = replace(wired(("a", "r"), a={"testbed": "two"}, r={"testbed": "hall"}), services=(service,))
    with pytest.raises(PartiesMeet, match="exports from") if is_refused else nullcontext():
        check_sides(topology, SIDES)


# What one reaches


class Net:
    """Every computer forwards as it is told to; those of parties send what they like."""

    def __init__(self, topology: Topology, reach: Reach) -> None:
        self.parties = party_of(topology)
        self.on = {
            computer.name: [(wire, str(i.ip4)) for i in computer.interfaces for wire in i.substrates]
            for computer in topology.computers
        }
        self.at = {(wire, ip): name for name, ends in self.on.items() for wire, ip in ends}
        self.owner = {ip: name for (_, ip), name in self.at.items()}
        self.routes = {name: {_net(hop.destination): hop.via for hop in hops} for name, hops in reach.routes.items()}
        self.bans = {
            (wire, ip): [IPv4Network(ban.network) for ban in reach.bans.get(name, ()) if ban.address == ip]
            for (wire, ip), name in self.at.items()
        }

    def way(self, name: str, target: str) -> tuple[str, str] | None:
        """Over which wire to which neighbour a computer sends: straight, else by the route."""
        straight = next((wire for wire, ip in self.on[name] if _net(ip) == _net(target)), None)
        if straight is not None:
            return straight, target
        via = self.routes.get(name, {}).get(_net(target))
        return None if via is None else next((wire, via) for wire, ip in self.on[name] if _net(ip) == _net(via))

    def trace(self, name: str, source: str, target: str) -> list[str]:
        """The wires that a packet passes which a computer sends as it is told to, and where it ends."""
        way = self.way(name, target)
        return [] if way is None else [way[0], *self.enter(*way, source, target)]

    def enter(self, wire: str, neighbour: str, source: str, target: str, left: int = 20) -> list[str]:
        """The wires that it passes after that one."""
        name = self.at.get((wire, neighbour))
        bans = self.bans.get((wire, neighbour), ())
        if name is None or not left or any(IPv4Address(ip) in ban for ip in (source, target) for ban in bans):
            return []
        if self.owner.get(target) == name:
            return [f"at {name}"]
        way = self.way(name, target)
        return [] if way is None else [way[0], *self.enter(*way, source, target, left - 1)]


def _net(ip: str) -> str:
    """The network of an address, or of a prefix: all are /24."""
    return ip.rpartition(".")[0]


BEYOND_THE_OTHER = [["node0", "node1"], ["node1", "node2"], ["node2", "node3", "node4"], ["node4", "node5"]]
BEYOND_EITHER = [["node0", "node2", "node4"], ["node3", "node2", "node4"], ["node4", "node5"]]
AT = ["one/attack", "hall", "hall", "one/defend", *["hall"] * 4]


@given(wires, places)
@example(BEYOND_THE_OTHER, AT)
@example(BEYOND_EITHER, AT)
def test_whatever_a_party_sends_nothing_of_it_or_of_an_answer_comes_to_the_other(
    on: list[list[str]], at: list[str]
) -> None:
    topology = topology_of(on, at)
    net = Net(topology, reach_of(topology, SIDES))
    of_wire = SIDES.of_substrates(topology)
    for (wire, neighbour), name in net.at.items():
        (party,) = of_wire[wire] or {None}
        if party is None or net.parties[name] is not None:
            continue
        foreign = {one for one, parties in of_wire.items() if parties - {party}}
        for source in (*net.owner, "192.0.2.1"):
            for target in net.owner:
                passed = net.enter(wire, neighbour, source, target)
                assert foreign.isdisjoint(passed), (name, source, target)
                if passed and passed[-1].startswith("at "):
                    answered = net.trace(passed[-1].removeprefix("at "), target, source)
                    assert foreign.isdisjoint(answered), (name, source, target)


@given(wires, places)
def test_with_a_common_backbone_each_party_and_what_is_shared_reach_one_another(
    on: list[list[str]], at: list[str]
) -> None:
    shared = [name for name, place in zip(NODES, at, strict=True) if SIDES.of(place) is None]
    assume(len(shared) > 1)
    topology = topology_of([*on, shared], at)
    check_sides(topology, SIDES)
    net = Net(topology, reach_of(topology, SIDES))
    backbone = {name: ip for name in shared for wire, ip in net.on[name] if wire == f"wire{len(on) + 1}"}
    for name, party in net.parties.items():
        neighbours = {net.owner[ip] for wire, _ in net.on[name] for one, ip in net.at if one == wire}
        if party is None or not neighbours & set(shared):
            continue
        for far, ip in backbone.items():
            mine = net.on[name][0][1]
            assert net.trace(name, mine, ip)[-1] == f"at {far}"
            assert net.trace(far, ip, mine)[-1] == f"at {name}"


def test_bans_are_on_wires_too_that_no_route_leads_over() -> None:
    at = {"a": {"testbed": "two"}, "r": {"testbed": "hall"}, "d": {"testbed": "one/defend"}}
    topology = replace(wired(("a", "r"), ("r", "d"), ("a", "r"), **at), routing="Static")
    part = replace(
        topology,
        substrates=topology.substrates[:2],
        elements=tuple(
            replace(c, interfaces=tuple(i for i in c.interfaces if i.substrates != ("wire3",)))
            for c in topology.computers
        ),
    )
    reach = reach_of(topology, SIDES, part)
    assert "10.1.3.0/24" not in {hop.destination for hops in reach.routes.values() for hop in hops}
    assert {(ban.address, ban.network) for ban in reach.bans["r"]} == {
        ("10.1.1.3", "10.1.2.0/24"),
        ("10.1.2.2", "10.1.1.0/24"),
        ("10.1.2.2", "10.1.3.0/24"),
        ("10.1.3.3", "10.1.2.0/24"),
    }


def test_without_parties_routes_are_as_ever() -> None:
    topology = replace(wired(("a", "b"), ("b", "c")), routing="Static")
    reach = reach_of(topology, Sides())
    assert [hop.via for hop in reach.routes["a"]] == ["10.1.1.3"]
    assert reach.bans == {}
