"""Parties over the API: what is refused, and that nothing which a party can ask for tells of the other."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.component.web.conftest import Site

PROGRAM = """
set ns [new Simulator]
source tb_compat.tcl
set alpha [$ns node]
set router [$ns node]
set omega [$ns node]
tb-set-node-testbed $alpha deter/attack
tb-set-node-testbed $router hall
tb-set-node-testbed $omega deter/defend
set near [$ns duplex-link $alpha $router 100Mb 0ms DropTail]
set yonder [$ns duplex-link $router $omega 100Mb 0ms DropTail]
tb-set-node-startcmd $router "ping alpha omega"
tb-set-ip-link $alpha $near 10.7.1.2
tb-set-ip-link $router $near 10.7.1.1
tb-set-ip-link $omega $yonder 10.8.1.2
tb-set-ip-link $router $yonder 10.8.1.1
$ns rtproto Static
$ns run
"""
PARTIES = {"attacker": {"testbeds": ["deter/attack"]}, "defender": {"testbeds": ["deter/defend"]}}
SERVICES = ["project_export:deter/attack:hall:project=p", "userconfig:deter/defend:hall:project=p"]
SECRETS = {
    "attacker": ("alpha", "deter/attack", "near", "10.7.1.", "attacker", "project_export"),
    "defender": ("omega", "deter/defend", "yonder", "10.8.1.", "defender", "userconfig"),
}
ENDS = "2999-01-31T12:00:00+00:00"


async def bob_of(site: Site, party: str) -> tuple[str, dict[str, str]]:
    """An experiment's id, and the headers of somebody whom its owner let in as one of a party."""
    body = {"name": "duel", "description": PROGRAM, "parties": PARTIES, "services": SERVICES}
    status, made = await site.call("POST", "/experiments", body)
    assert status == 201, made
    await site.accounts.add("bob", "physics", "correct horse battery")
    bob = (await site.accounts.get("bob")).principal
    grant = {"principal": bob, "expires": ENDS, "party": party}
    status, granted = await site.call("POST", "/experiments/duel/grants", grant)
    assert status == 201, granted
    _token, token = await site.accounts.issue("bob", "test", 1)
    return made["id"], {"Authorization": f"Bearer {token}", "Experiment-Credential": granted["credential"]}


@pytest.mark.parametrize(("party", "other"), [("attacker", "defender"), ("defender", "attacker")])
async def test_what_a_party_is_shown_tells_nothing_of_the_other(site: Site, party: str, other: str) -> None:
    wanted, headers = await bob_of(site, party)
    text = ""
    for part in ("", "/topology", "/layout", "/picture", "/log", "/credentials"):
        async with site.session.get(f"{site.url}/api/v1/experiments/{wanted}{part}", headers=headers) as answer:
            assert answer.status == 200, part
            text += await answer.text()
    assert [one for one in SECRETS[other] if is_in(one, text)] == []
    assert [one for one in SECRETS[party] if not is_in(one, text)] == [party]
    assert "router" in text


def is_in(word: str, text: str) -> bool:
    """Whether a word stands by itself in a text."""
    return re.search(rf"(?<![A-Za-z0-9+/]){re.escape(word)}(?![A-Za-z+/=])", text) is not None


async def test_a_party_neither_ends_nor_prolongs_nor_lets_in(site: Site) -> None:
    wanted, headers = await bob_of(site, "attacker")
    asked: list[tuple[str, str, Any, str]] = [
        ("DELETE", "", None, "experiments.not_granted"),
        ("POST", "/renew", {"valid_until": None}, "experiments.not_granted"),
        ("POST", "/grants", {"principal": "0" * 40, "expires": ENDS}, "experiments.unknown"),
    ]
    for method, part, body, code in asked:
        url = f"{site.url}/api/v1/experiments/{wanted}{part}"
        async with site.session.request(method, url, headers=headers, json=body) as answer:
            assert (await answer.json())["code"] == code


@pytest.mark.parametrize(
    ("parties", "code"),
    [
        ({"red": {"testbeds": ["nowhere"]}}, "experiments.unusable_party"),
        ({"red": {"testbeds": ["deter/attack"]}, "blue": {"testbeds": ["hall"]}}, "topology.parties_meet"),
        ({"red": {"testbeds": []}}, "web.invalid"),
    ],
)
async def test_what_cannot_be_kept_apart_is_refused(site: Site, parties: Any, code: str) -> None:
    body = {"name": "duel", "description": PROGRAM, "parties": parties}
    status, problem = await site.call("POST", "/experiments", body)
    assert (status, problem["code"]) == (400, code), problem
    assert (await site.call("GET", "/experiments"))[1]["items"] == []
