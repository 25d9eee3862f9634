"""Security rules as they are written on a command line, and back.

    tcp 80                          tcp 8000-8100 from 192.0.2.0/24
    icmp                            out udp 53 to 198.51.100.1/32

First `in` (which may be left out) or `out`, then tcp, udp, icmp or any, then a port or a range of ports, then who the other
side may be; everybody, if that is not said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deploy.commands.errors import UnusableOption

FORM = re.compile(
    r"((?P<direction>in|out)\s+)?(?P<protocol>tcp|udp|icmp|any)"
    r"(\s+(?P<first>\d{1,5})(-(?P<last>\d{1,5}))?)?(\s+(from|to)\s+(?P<cidr>[0-9A-Fa-f.:]{2,39}/\d{1,3}))?"
)


def parse(text: str) -> dict[str, Any]:
    """A rule as the API takes it; raises `UnusableOption`. What it means is the member's to judge."""
    found = FORM.fullmatch(text.strip())
    if found is None:
        raise UnusableOption(
            f"{text[:80]!r} is no rule; write it as `tcp 80 from 0.0.0.0/0`, `udp 5000-5100` or `icmp`."
        )
    ports = None
    if found["first"] is not None:
        ports = [int(found["first"]), int(found["last"] or found["first"])]
    return {
        "direction": found["direction"] or "in",
        "protocol": found["protocol"],
        "ports": ports,
        "cidr": found["cidr"],
    }


def text_of(rule: Mapping[str, Any]) -> str:
    """A rule as it is written."""
    words = ["out"] if rule["direction"] == "out" else []
    words.append(rule["protocol"])
    if rule["ports"] is not None:
        first, last = rule["ports"]
        words.append(str(first) if first == last else f"{first}-{last}")
    if rule["cidr"] is not None:
        words += ["to" if rule["direction"] == "out" else "from", rule["cidr"]]
    return " ".join(words)
