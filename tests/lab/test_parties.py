"""Attacker and defender at one site, with a router that they share at another: neither sees nor reaches the other, whatever it tries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.errors import LabFailed
from deploy.lab.person import Person, machines_at, until
from deploy.lab.places import RUN
from tests.lab.order_steps import HOME, LENDER

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]
DUEL = """
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
tb-set-ip-link $alpha $near 10.7.1.2
tb-set-ip-link $router $near 10.7.1.1
tb-set-ip-link $omega $yonder 10.8.1.2
tb-set-ip-link $router $yonder 10.8.1.1
$ns rtproto Static
$ns run
"""
FILE = "/run/fedlab/tmp/duel.ns"
PATIENCE = 120.0
UNTIL = "2999-01-31T12:00:00+00:00"
ATTACKER = ("alpha", "deter/attack", "near", "10.7.1.", "attacker", "mallory")
DEFENDER = ("omega", "deter/defend", "yonder", "10.8.1.", "defender", "trent")


@dataclass(frozen=True)
class Duel:
    """The running experiment: who is in it, its id, and what its owner sees of its nodes."""

    owner: Person
    people: dict[str, Person]
    id: str
    nodes: dict[str, dict[str, Any]]

    def at(self, node: str, command: str) -> str:
        """Run a command as root on a node."""
        return self.owner.at(self.nodes[node], command)

    def pings(self, node: str, *options: str, seconds: int = 3) -> bool:
        """Whether a node has an answer within some seconds."""
        said = self.at(node, f"ping -n -q -c 1 -w {seconds} -W {seconds} {' '.join(options)} 2>&1; true")
        return " 0% packet loss" in said

    def heard(self, node: str) -> str:
        """How much of ICMP came to a node."""
        return self.at(node, "grep Icmp: /proc/net/snmp")


@pytest.fixture(scope="module")
def duel(lab: Lab) -> Iterator[Duel]:
    """One that is active; terminated in the end, after which no site holds anything of it."""
    owner = Person(lab, HOME, "paula")
    people = {"attacker": Person(lab, HOME, "mallory"), "defender": Person(lab, HOME, "trent")}
    lab.run(HOME, ["tee", FILE], text=DUEL)
    places = ("--map", f"deter={HOME}.test", "--map", f"hall={LENDER}.test")
    parties = ("--party", "attacker=deter/attack", "--party", "defender=deter/defend")
    keys = [option for name, one in people.items() for option in ("--party-key", f"{name}={one.public_key}")]
    follow = ("--ssh-key", owner.public_key, "--follow", "--timeout", str(PATIENCE))
    try:
        owner.fed("experiment", "create", FILE, *places, *parties, *keys, *follow, patience=PATIENCE)
        shown = owner.ask("experiment", "show", "duel")
        assert shown["state"] == "active"
        for name, one in people.items():
            _let_in(lab, owner, one, name)
        nodes = {node["name"]: node for segment in shown["segments"] for node in segment["nodes"]}
        yield Duel(owner, people, shown["id"], nodes)
    finally:
        owner.fed("experiment", "terminate", "duel", "--follow", patience=PATIENCE)
        for site in (HOME, LENDER):
            until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]


def _let_in(lab: Lab, owner: Person, person: Person, party: str) -> None:
    """Give somebody the role of a party, which they keep at the site."""
    config = str(RUN / HOME / "member/member.toml")
    accounts = {one["user"]: one["fedid"] for one in owner.ask("member", "user", "list", "-c", config)}
    credential = owner.fed("experiment", "grant", "duel", accounts[person.name], "--party", party, "--until", UNTIL)
    kept = f"/run/fedlab/tmp/{party}.cred"
    lab.run(HOME, ["tee", kept], text=credential)
    person.fed("credentials", "add", kept)


def told(text: str, secrets: tuple[str, ...]) -> list[str]:
    """Which of them are in a text, as words: a key may have any letters."""
    return [one for one in secrets if re.search(rf"(?<![A-Za-z0-9+/]){re.escape(one)}(?![A-Za-z+/=])", text)]


@pytest.mark.parametrize(
    ("party", "own", "foreign"), [("attacker", ATTACKER, DEFENDER), ("defender", DEFENDER, ATTACKER)]
)
def test_no_output_tells_anything_of_the_other(
    duel: Duel, party: str, own: tuple[str, ...], foreign: tuple[str, ...]
) -> None:
    person = duel.people[party]
    text = "".join(
        person.fed("experiment", verb, duel.id, *form) for verb in ("show", "log") for form in ((), ("-o", "json"))
    )
    text += person.fed("experiment", "topology", duel.id)
    assert told(text, foreign) == []
    assert told(text, own[:4]) == list(own[:4])
    assert "router" in text
    hosts = duel.at(own[0], "cat /etc/hosts; ip route")
    assert told(hosts, (*foreign, "router-yonder" if party == "attacker" else "router-near")) == []
    assert "router" in hosts


def test_each_reaches_what_is_shared(duel: Duel) -> None:
    for node in ("alpha", "omega"):
        until(lambda node=node: duel.pings(node, "router", seconds=5), f"{node} pings the router", PATIENCE)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("node", "other", "here", "there"), [("alpha", "omega", "10.7.1", "10.8.1"), ("omega", "alpha", "10.8.1", "10.7.1")]
)
def test_neither_reaches_the_other_by_routes_and_addresses_of_its_own(
    duel: Duel, node: str, other: str, here: str, there: str
) -> None:
    until(lambda: duel.pings(node, "router", seconds=5), f"{node} pings the router", PATIENCE)
    duel.at(node, f"ip route replace {there}.0/24 via {here}.1")
    duel.at(other, f"ip route replace {here}.0/24 via {there}.1")  # even if they help one another
    before = duel.heard(other)
    assert not duel.pings(node, f"{there}.2")
    assert not duel.pings(node, f"{there}.1")
    duel.at(node, f"ip address add {there}.2/32 dev lo")
    assert not duel.pings(node, f"-I {there}.2 {here}.1")
    duel.at(node, f"ip address del {there}.2/32 dev lo")
    far = duel.nodes[other]["address"]  # in the intranet of the site that lends to both
    assert not duel.pings(node, far)
    gateway = "$(ip route | sed -n 's/^default via \\([0-9.]*\\) .*/\\1/p')"
    duel.at(node, f"ip route replace {far} via {gateway}")
    assert not duel.pings(node, far)
    assert duel.heard(other) == before
    assert duel.pings(node, "router", seconds=20)


def test_each_enters_and_operates_its_own_nodes_alone(duel: Duel) -> None:
    mallory = duel.people["attacker"]
    assert mallory.at(duel.nodes["alpha"], "hostname").strip() == "alpha"
    for name in ("router", "omega"):
        with pytest.raises(LabFailed):
            mallory.at(duel.nodes[name], "true")
    done = json.loads(mallory.fed_status("experiment", "operate", duel.id, "console", "-o", "json").stdout)
    assert [*done["output"], *done["failed"]] == ["alpha"]
    for verb in ("renew", "terminate"):
        assert mallory.fed_status("experiment", verb, duel.id).returncode == 1
