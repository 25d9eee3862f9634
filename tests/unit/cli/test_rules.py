"""Security rules on the command line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.commands.errors import UnusableOption
from deploy.commands.rules import parse, text_of
from fedkit.protocol.lending import SecurityRule

PORTS = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda pair: (min(pair), max(pair)))
CIDR = st.sampled_from([None, "0.0.0.0/0", "192.0.2.0/24", "2001:db8::/32", "198.51.100.1/32"])


@given(direction=st.sampled_from(["in", "out"]), protocol=st.sampled_from(["tcp", "udp"]), ports=PORTS, cidr=CIDR)
def test_what_is_written_reads_as_it_was(
    direction: Any, protocol: Any, ports: tuple[int, int], cidr: str | None
) -> None:
    rule = SecurityRule(direction=direction, protocol=protocol, ports=ports, cidr=cidr).model_dump(mode="json")
    assert parse(text_of(rule)) == rule


@given(direction=st.sampled_from(["in", "out"]), protocol=st.sampled_from(["tcp", "icmp", "any"]), cidr=CIDR)
def test_rules_without_ports_too(direction: Any, protocol: Any, cidr: str | None) -> None:
    rule = SecurityRule(direction=direction, protocol=protocol, cidr=cidr).model_dump(mode="json")
    assert parse(text_of(rule)) == rule


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("tcp 80", {"direction": "in", "protocol": "tcp", "ports": [80, 80], "cidr": None}),
        (" tcp  80 from 0.0.0.0/0 ", {"direction": "in", "protocol": "tcp", "ports": [80, 80], "cidr": "0.0.0.0/0"}),
        (
            "out udp 53 to 192.0.2.1/32",
            {"direction": "out", "protocol": "udp", "ports": [53, 53], "cidr": "192.0.2.1/32"},
        ),
        ("icmp", {"direction": "in", "protocol": "icmp", "ports": None, "cidr": None}),
    ],
)
def test_examples(text: str, meant: dict[str, Any]) -> None:
    assert parse(text) == meant


@pytest.mark.parametrize("text", ["", "http", "tcp eighty", "tcp 80 of 0.0.0.0/0", "tcp 1-2-3", "tcp 80; reboot"])
def test_what_is_no_rule_is_answered_by_an_example(text: str) -> None:
    with pytest.raises(UnusableOption, match="write it as"):
        parse(text)
