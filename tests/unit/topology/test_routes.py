"""Routes over a whole topology: everybody is reached, on a shortest way, and always on the same one."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.topology.errors import UnusableRoute
from fedkit.topology.model import Attribute, Computer, Interface, Substrate, Topology
from fedkit.topology.routes import check_given, routes_of


def wired(*wires: tuple[str, ...], routing: str | None = "Static") -> Topology:
    """Computers by the wires that they are on; the first wire is 10.1.1.0/24, and so on."""
    computers: dict[str, list[Interface]] = {}
    for number, members in enumerate(wires, 1):
        for host, name in enumerate(members, 2):
            said = (Attribute("ip4_address", f"10.1.{number}.{host}"), Attribute("ip4_netmask", "255.255.255.0"))
            interfaces = computers.setdefault(name, [])
            interfaces.append(Interface(f"inf{len(interfaces)}", (f"wire{number}",), attributes=said))
    return Topology(
        substrates=tuple(Substrate(f"wire{number}") for number in range(1, len(wires) + 1)),
        elements=tuple(Computer(name=name, interfaces=tuple(i)) for name, i in computers.items()),
        routing=routing,
    )


def told(topology: Topology) -> dict[str, dict[str, str]]:
    """Neighbours by computer and destination."""
    return {name: {hop.destination: hop.via for hop in hops} for name, hops in routes_of(topology).items()}


def test_a_chain() -> None:
    found = told(wired(("a", "b"), ("b", "c"), ("c", "d")))
    assert found["a"] == {"10.1.2.0/24": "10.1.1.3", "10.1.3.0/24": "10.1.1.3"}
    assert found["b"] == {"10.1.3.0/24": "10.1.2.3"}
    assert found["d"] == {"10.1.1.0/24": "10.1.3.2", "10.1.2.0/24": "10.1.3.2"}


def test_of_two_ways_the_shorter_one_is_taken() -> None:
    found = told(wired(("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")))
    assert found["a"]["10.1.3.0/24"] == "10.1.4.3"
    assert found["a"]["10.1.2.0/24"] == "10.1.1.3"


def test_manual_routing_and_none_make_no_routes() -> None:
    assert told(wired(("a", "b"), ("b", "c"), routing="Manual")) == {}
    assert told(wired(("a", "b"), ("b", "c"), routing=None)) == {}


def given_routes(*routes: str) -> Topology:
    """a, b, c and d in a row; these are a's own."""
    topology = wired(("a", "b"), ("b", "c"), ("c", "d"), routing="Manual")
    first, *others = topology.computers
    return replace(
        topology, elements=(replace(first, attributes=tuple(Attribute("route", one) for one in routes)), *others)
    )


def test_manual_routes_are_those_that_a_computer_is_given() -> None:
    topology = given_routes("wire2 b", "d b", "wire1 b")
    check_given(topology)
    assert told(topology) == {"a": {"10.1.2.0/24": "10.1.1.3", "10.1.3.3/32": "10.1.1.3"}}
    assert told(replace(topology, routing=None)) == {}
    assert told(replace(topology, routing="Static"))["a"] == {"10.1.2.0/24": "10.1.1.3", "10.1.3.0/24": "10.1.1.3"}


@pytest.mark.parametrize(
    ("route", "why"), [("d c", "no neighbour"), ("d nobody", "no neighbour"), ("x b", "no node, link")]
)
def test_a_route_that_cannot_be_is_refused(route: str, why: str) -> None:
    with pytest.raises(UnusableRoute, match=why):
        check_given(given_routes(route))
    assert told(given_routes(route)) == {}
    check_given(replace(given_routes(route), routing="Static"))


def test_what_cannot_be_reached_has_no_route() -> None:
    assert told(wired(("a", "b"), ("c", "d"))) == {"a": {}, "b": {}, "c": {}, "d": {}}


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=4, unique=True), min_size=1, max_size=8))
def test_packets_arrive_and_every_hop_brings_them_nearer(wires: list[list[str]]) -> None:
    topology = wired(*map(tuple, wires))
    routes = told(topology)
    assert routes == told(topology)
    holders = {str(i.ip4): c.name for c in topology.computers for i in c.interfaces}
    on = {c.name: {str(i.ip4) for i in c.interfaces} for c in topology.computers}
    for source, ways in routes.items():
        for subnet, via in ways.items():
            assert any(ip_address(via) in ip_network(f"{own}/24", strict=False) for own in on[source])
            here, steps = holders[via], 1
            while not any(ip_address(own) in ip_network(subnet) for own in on[here]):
                here, steps = holders[routes[here][subnet]], steps + 1
                assert steps < len(wires) + 1
