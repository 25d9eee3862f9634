"""Splitting: the seed's example as the seed has it, and the laws that hold for any description."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.topology.model import Attribute, Computer, Interface, Substrate, Topology
from fedkit.topology.ns2.reader import read
from fedkit.topology.split import CannotSplit, Split, split
from tests.unit.topology.test_ns2 import SEED


async def test_the_seeds_example() -> None:
    done = split((await read(SEED.encode())).topology).as_json()
    assert done["crossings"] == ["link1"]
    deter, ucb = done["pieces"]
    assert (deter["testbed"], [c["name"] for c in deter["computers"]]) == ("deter", ["a", "b"])
    assert [s["name"] for s in deter["substrates"]] == ["link0", "link1"]
    assert deter["connectors"] == [
        {
            "name": "ucbtunnel0",
            "peer": "ucb",
            "crossings": [{"substrate": "link1", "stands_for": ["c"], "ip4": ["10.1.3.2"]}],
        }
    ]
    assert (ucb["testbed"], [c["name"] for c in ucb["computers"]]) == ("ucb", ["c", "d", "e"])
    assert [(s["name"], s["kind"]) for s in ucb["substrates"]] == [("link1", "link"), ("lan0", "lan")]
    assert ucb["connectors"] == [
        {
            "name": "detertunnel0",
            "peer": "deter",
            "crossings": [{"substrate": "link1", "stands_for": ["b"], "ip4": ["10.1.3.3"]}],
        }
    ]


def computer(name: str, testbed: str | None, *ends: tuple[str, str]) -> Computer:
    interfaces = tuple(
        Interface(f"inf{n:03d}", (wire,), attributes=(Attribute("ip4_address", ip),))
        for n, (wire, ip) in enumerate(ends)
    )
    return Computer(
        name=name, interfaces=interfaces, attributes=(Attribute("testbed", testbed),) if testbed is not None else ()
    )


def test_every_computer_needs_a_testbed() -> None:
    with pytest.raises(CannotSplit, match="b"):
        split(Topology(elements=(computer("a", "x"), computer("b", None))))


def test_a_lan_over_three_testbeds_is_a_star_around_the_largest() -> None:
    lan = Topology(
        (Substrate("lan"),),
        (
            computer("a", "x", ("lan", "10.1.1.2")),
            computer("b", "y", ("lan", "10.1.1.3")),
            computer("c", "y", ("lan", "10.1.1.4")),
            computer("d", "z", ("lan", "10.1.1.5")),
        ),
    )
    x, y, z = split(lan).pieces
    assert [(c.peer, c.crossings[0].stands_for) for c in x.connectors] == [("y", ("b", "c", "d"))]
    assert [(c.peer, c.crossings[0].stands_for) for c in y.connectors] == [("x", ("a",)), ("z", ("d",))]
    assert [(c.peer, c.crossings[0].ip4) for c in z.connectors] == [("y", ("10.1.1.2", "10.1.1.3", "10.1.1.4"))]


def test_parallel_links_stay_apart_and_are_spread_over_portals() -> None:
    wires = tuple(Substrate(f"l{n}") for n in range(3))
    two = Topology(
        wires,
        (
            computer("a", "x", *((w.name, f"10.1.{n}.2") for n, w in enumerate(wires))),
            computer("b", "y", *((w.name, f"10.1.{n}.3") for n, w in enumerate(wires))),
        ),
    )
    (one,) = split(two).pieces[0].connectors
    assert [crossing.substrate for crossing in one.crossings] == ["l0", "l1", "l2"]
    spread = split(two, portals=2).pieces[0].connectors
    assert [(c.name, [x.substrate for x in c.crossings]) for c in spread] == [
        ("ytunnel0", ["l0", "l2"]),
        ("ytunnel1", ["l1"]),
    ]


def test_a_connector_takes_no_name_that_a_computer_has() -> None:
    two = Topology(
        (Substrate("l"),), (computer("ytunnel0", "x", ("l", "10.1.1.2")), computer("b", "y", ("l", "10.1.1.3")))
    )
    assert split(two).pieces[0].connectors[0].name == "ytunnel1"


@st.composite
def descriptions(draw: st.DrawFn) -> Topology:
    wires = [f"w{n}" for n in range(draw(st.integers(0, 5)))]
    beds = ["x", "y", "z/one", "z/two"]
    elements = []
    for number in range(draw(st.integers(1, 8))):
        on = draw(st.lists(st.sampled_from(wires), unique=True)) if wires else []
        ends = [(wire, f"10.{wires.index(wire) + 1}.1.{number + 2}") for wire in on]
        elements.append(computer(f"n{number}", draw(st.sampled_from(beds)), *ends))
    return Topology(tuple(Substrate(wire) for wire in wires), tuple(elements))


def reachable(done: Split, wire: str) -> int:
    """How many groups of testbeds the connectors of one wire leave."""
    beds = {p.testbed for p in done.pieces if wire in {s.name for s in p.topology.substrates}}
    group = {bed: {bed} for bed in beds}
    for piece in done.pieces:
        for connector in piece.connectors:
            if any(crossing.substrate == wire for crossing in connector.crossings):
                joined = group[piece.testbed] | group[connector.peer]
                for bed in joined:
                    group[bed] = joined
    return len({frozenset(g) for g in group.values()})


@given(descriptions(), st.integers(1, 3))
def test_pieces_joined_again_are_the_original(topology: Topology, portals: int) -> None:
    done = split(topology, portals)
    again = [c for piece in done.pieces for c in piece.topology.computers]
    assert sorted(again, key=lambda c: c.name) == sorted(topology.computers, key=lambda c: c.name)
    members = {wire: {c.name for c, _ in ends if isinstance(c, Computer)} for wire, ends in topology.ends.items()}
    for piece in done.pieces:
        own = {c.name for c in piece.topology.computers}
        names = Counter(connector.name for connector in piece.connectors)
        assert not any(number > 1 for number in names.values())
        for wire, ends in members.items():
            beyond = [x for k in piece.connectors for x in k.crossings if x.substrate == wire]
            far = Counter(name for crossing in beyond for name in crossing.stands_for)
            if ends & own and ends - own:
                assert far == Counter(ends - own), "each far computer stands beyond exactly one connector"
            else:
                assert not beyond
    for wire in done.crossings:
        assert reachable(done, wire) == 1
        ways = sum(1 for p in done.pieces for k in p.connectors for x in k.crossings if x.substrate == wire)
        beds = sum(1 for p in done.pieces if wire in {s.name for s in p.topology.substrates})
        assert ways == 2 * (beds - 1), "a tree: no loop"
