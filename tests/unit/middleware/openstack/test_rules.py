"""What security rules become in Neutron."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.openstack.rules import Wanted, wanted
from fedkit.protocol.lending import SecurityRule

GROUP = "11111111-2222-3333-4444-555555555555"
FREE_OUT = {Wanted("egress", "IPv4"), Wanted("egress", "IPv6")}
RULES = st.builds(
    SecurityRule,
    direction=st.sampled_from(["in", "out"]),
    protocol=st.sampled_from(["tcp", "udp"]),
    ports=st.none() | st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: (min(pair), max(pair))),
    cidr=st.none() | st.ip_addresses().map(str),
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (SecurityRule(ports=(80, 90)), {Wanted("ingress", f"IPv{n}", "tcp", 80, 90) for n in (4, 6)}),
        (SecurityRule(protocol="udp"), {Wanted("ingress", f"IPv{n}", "udp") for n in (4, 6)}),
        (
            SecurityRule(protocol="icmp"),
            {Wanted("ingress", "IPv4", "icmp"), Wanted("ingress", "IPv6", "ipv6-icmp")},
        ),
        (SecurityRule(protocol="any", cidr="10.0.0.0/8"), {Wanted("ingress", "IPv4", remote_ip_prefix="10.0.0.0/8")}),
        (
            SecurityRule(protocol="icmp", cidr="fd00::/8"),
            {Wanted("ingress", "IPv6", "ipv6-icmp", remote_ip_prefix="fd00::/8")},
        ),
        (SecurityRule(protocol="any", cidr="0.0.0.0/0"), {Wanted("ingress", "IPv4")}),
    ],
)
def test_a_rule_says_the_same_in_both_languages(rule: SecurityRule, expected: set[Wanted]) -> None:
    assert wanted([rule]) == expected | FREE_OUT


def test_nothing_comes_in_without_a_rule_and_all_goes_out() -> None:
    assert wanted([]) == FREE_OUT


def test_naming_some_outgoing_traffic_closes_the_rest() -> None:
    dns = SecurityRule(direction="out", protocol="udp", ports=(53, 53), cidr="10.0.0.1/32")
    assert wanted([dns]) == {Wanted("egress", "IPv4", "udp", 53, 53, "10.0.0.1/32")}


def test_inside_everything_may_pass_whatever_the_rules_say() -> None:
    dns = SecurityRule(direction="out", protocol="udp", ports=(53, 53))
    inside = {Wanted(way, ether, remote_group_id=GROUP) for way in ("ingress", "egress") for ether in ("IPv4", "IPv6")}
    assert wanted([dns], GROUP) == wanted([dns]) | inside


@given(st.lists(RULES, max_size=8))
def test_the_order_of_rules_and_doubles_mean_nothing(rules: list[SecurityRule]) -> None:
    assert wanted(rules) == wanted([*reversed(rules), *rules])


@given(st.lists(RULES, max_size=8), RULES)
def test_more_rules_of_one_direction_never_close_what_was_open(rules: list[SecurityRule], more: SecurityRule) -> None:
    more = more.model_copy(update={"direction": "in"})
    assert wanted(rules) <= wanted([*rules, more])
