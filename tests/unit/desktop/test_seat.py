"""What a member tells a desktop is believed no further than an experiment needs."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.desktop.errors import InTheWay, UnusableSeat
from fedkit.desktop.seat import NEVER, check_apart, names_for, portal_of, read

TOLD: dict[str, Any] = {
    "name": "laptop",
    "address": "10.1.1.254",
    "prefix_length": 24,
    "tag": 4094,
    "hosts": [{"ip4": "10.1.1.2", "names": ["n0", "n0-wire1"]}, {"ip4": "10.1.1.254", "names": ["laptop"]}],
    "routes": [{"destination": "10.1.2.0/24", "via": "10.1.1.3"}],
    "portal": {"host": "192.0.2.1", "port": 2022, "host_key": "ssh-ed25519 AAAA"},
}


def test_what_is_right_is_read() -> None:
    seat = read(TOLD)
    assert (str(seat.address), seat.networks) == (
        "10.1.1.254/24",
        [IPv4Network("10.1.1.0/24"), IPv4Network("10.1.2.0/24")],
    )
    assert seat.hosts[0] == ("10.1.1.2", ["n0", "n0-wire1"])
    portal = portal_of(TOLD)
    assert portal is not None
    assert (portal.host, portal.port) == ("192.0.2.1", 2022)
    assert portal_of(TOLD | {"portal": None}) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "10.1.1"},
        {"address": "127.0.0.1"},
        {"address": "224.0.0.1"},
        {"prefix_length": 4},
        {"prefix_length": "x"},
        {"name": "laptop\n6.6.6.6 bank"},
        {"hosts": [{"ip4": "10.1.1.2", "names": ["n0 bank"]}]},
        {"hosts": [{"ip4": "10.1.1.2\n6.6.6.6", "names": ["n0"]}]},
        {"hosts": [{"names": ["n0"]}]},
        {"hosts": None},
        {"routes": [{"destination": "0.0.0.0/0", "via": "10.1.1.3"}]},
        {"routes": [{"destination": "0.0.0.0/1", "via": "10.1.1.3"}]},
        {"routes": [{"destination": "127.0.0.0/8", "via": "10.1.1.3"}]},
        {"routes": [{"destination": "10.1.2.0/24", "via": "192.168.0.1"}]},
        {"routes": [{"destination": "10.1.2.0/24 dev eth0", "via": "10.1.1.3"}]},
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnusableSeat):
        read(TOLD | wrong)


@pytest.mark.parametrize(
    "wrong", [{}, {"host": "h", "port": 0, "host_key": "k"}, {"host": "h", "port": 1, "host_key": "a\nb"}]
)
def test_a_portal_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UnusableSeat):
        portal_of(TOLD | {"portal": wrong})


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_no_route_leads_to_what_is_never_an_experiments(address: IPv4Address, length: int) -> None:
    network = IPv4Network(f"{address}/{length}", strict=False)
    told = TOLD | {"routes": [{"destination": str(network), "via": "10.1.1.3"}]}
    if length < 8 or any(network.overlaps(one) for one in NEVER):
        with pytest.raises(UnusableSeat):
            read(told)
    else:
        assert read(told).networks[1] == network


@pytest.mark.parametrize(
    ("routes", "needed"), [(["10.1.2.128/25"], []), (["10.0.0.0/8"], []), (["0.0.0.0/0"], ["10.1.1.9"])]
)
def test_what_the_machine_reaches_already_is_not_taken_from_it(routes: list[str], needed: list[str]) -> None:
    with pytest.raises(InTheWay):
        check_apart(read(TOLD), map(IPv4Network, routes), map(IPv4Address, needed))


def test_a_machine_whose_networks_are_others_is_not_refused() -> None:
    check_apart(read(TOLD), map(IPv4Network, ["0.0.0.0/0", "192.168.0.0/16"]), [IPv4Address("192.0.2.1")])


def test_names_that_others_could_have_are_left_out() -> None:
    hosts = [
        {"ip4": "10.1.1.2", "names": ["n0", "printer", "Localhost", "bank.example"]},
        {"ip4": "10.1.1.3", "names": ["x.y"]},
    ]
    lines, left_out = names_for(read(TOLD | {"hosts": hosts}), {"localhost", "printer"})
    assert lines == [("10.1.1.2", ["n0"])]
    assert left_out == ["printer", "Localhost", "bank.example", "x.y"]
