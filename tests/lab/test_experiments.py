"""The seed's experiment over two sites behind their firewalls: one description, and what looks like one local testbed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.places import RUN
from deploy.lab.topology import USER
from tests.lab.order_steps import HOME, LENDER
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]
CLOSED = "site-c"
FILE = "/run/fedlab/tmp/seed.ns"
LAN = """
set ns [new Simulator]
source tb_compat.tcl
set a [$ns node]
set b [$ns node]
tb-set-node-testbed $a deter
tb-set-node-testbed $b deter
MORE
set lan0 [$ns make-lan "$a $b" 100Mb 0ms]
$ns run
"""
PATIENCE = 120.0
WAY = ["10.1.1.3", "10.1.3.2", "10.1.2.4"]  # b, then c beyond the portals, then e


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A researcher at the first site."""
    return Person(lab, HOME, "rosa")


@contextmanager
def experiment(
    person: Person, description: str = SEED, *, deter: str = HOME, ucb: str = LENDER, patience: float = PATIENCE
) -> Iterator[dict[str, Any]]:
    """An experiment that is active; terminated in the end, after which no site holds anything of it."""
    name = "seed"
    person.write(FILE, description)
    try:
        follow = ("--name", name, "--ssh-key", person.public_key, "--follow", "--timeout", str(patience))
        places = ("--map", f"deter={deter}.test", "--map", f"ucb={ucb}.test")
        person.fed("experiment", "create", FILE, *places, *follow, patience=patience)
        shown = person.ask("experiment", "show", name)
        assert shown["state"] == "active"
        yield shown
    finally:
        person.fed("experiment", "terminate", name, "--follow", patience=patience)


def pinged(person: Person, node: dict[str, Any], name: str, *options: str) -> bool:
    """Whether a node gets every answer of another."""
    return ", 0% packet loss" in person.at(node, f"ping -c 2 -w 10 {' '.join(options)} {name}; true")


def nodes_of(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Its nodes, by name."""
    return {node["name"]: node for segment in shown["segments"] for node in segment["nodes"]}


def test_the_seeds_experiment_looks_like_a_local_one(lab: Lab, person: Person) -> None:
    with experiment(person) as shown:
        nodes = nodes_of(shown)
        assert {segment["testbed"]: segment["member"] for segment in shown["segments"]} == {
            "deter": f"{HOME}.test",
            "ucb": f"{LENDER}.test",
        }
        assert sorted(nodes) == ["a", "b", "c", "d", "e"]
        planes = [portal["plane"] for segment in shown["segments"] for portal in segment["portals"]]
        assert planes == ["superframes"] * 2
        assert person.fed("experiment", "show", "seed").count("by superframes") == 2
        until(lambda: pinged(person, nodes["a"], "e"), "a pings e", PATIENCE)
        way = person.at(nodes["a"], "traceroute -n -w 3 -q 1 -m 5 e").splitlines()[1:]
        assert [line.split()[1] for line in way] == WAY
        banner = person.at(nodes["a"], "nc -w 5 e 22 </dev/null | head -c 7; true")
        assert banner == "SSH-2.0"
        key = person.at(nodes["a"], "ssh-keyscan -T 10 -t ed25519 e 2>/dev/null").split()[-1]
        assert key in nodes["e"]["host_keys"][0]
        told = person.fed("experiment", "operate", shown["id"], "run", "--node", "a", "--node", "e", "--", "hostname")
        assert sorted(told.splitlines()) == ["a: a", "e: e"]
        for name in "abcd":
            assert person.at(nodes[name], "ping -c 1 e >/dev/null; grep -w e /etc/hosts").split()[0] == "10.1.2.4"
        command = "for name in a b c d e; do ping -c 1 -w 30 $name >/dev/null && echo $name; done"
        reached = person.fed("experiment", "attach", "seed", "--", "sh", "-c", command, patience=PATIENCE)
        assert reached.split() == list("abcde")  # from a desk behind the firewall
        assert person.ask("experiment", "show", "seed")["state"] == "active"
    for site in (HOME, LENDER):
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]


def test_a_site_that_lets_nothing_in_is_part_of_it_by_the_tunnel_server_of_another(lab: Lab, person: Person) -> None:
    with experiment(person, deter=CLOSED, ucb=HOME) as shown:
        nodes = nodes_of(shown)
        until(lambda: pinged(person, nodes["a"], "e"), "a pings e", PATIENCE)
        told = person.fed("experiment", "operate", shown["id"], "run", "--node", "a", "--", "hostname")
        assert told.splitlines() == ["a: a"]
    until(lambda: machines_at(lab, CLOSED) == [], f"{CLOSED} holds nothing", PATIENCE)


@contextmanager
def without_tunnels(lab: Lab, person: Person, *sites: str) -> Iterator[None]:
    """Have sites do without a tunnel server, as their operators would."""
    config = {site: str(RUN / site / "member/member.toml") for site in sites}

    def are_reached(*, wanted: bool) -> bool:
        offers = {member["name"]: "tunnels" in member["abilities"] for member in person.ask("members")}
        return all(offers.get(f"{site}.test") is wanted for site in sites)

    def configure(script: str, *, wanted: bool) -> None:
        for site, file in config.items():
            lab.run("internet", ["sh", "-c", script, "sh", file])
            lab.restart(f"{site}/member")
        until(lambda: are_reached(wanted=wanted), "everybody knows what they can", PATIENCE)

    try:
        # Written in place: the file stays its service's own.
        configure('cp -p "$1" "$1.good" && sed "/^.tunnel.$/,/^$/d" "$1.good" >"$1"', wanted=False)
        yield
    finally:
        configure('[ ! -e "$1.good" ] || mv "$1.good" "$1"', wanted=True)


def test_two_sites_without_tunnel_servers_meet_at_the_one_of_the_home(lab: Lab, person: Person) -> None:
    """Neither could let the other's portal in; the one that lets nothing in at all waits, by a port of ours."""
    with without_tunnels(lab, person, CLOSED, LENDER):
        with experiment(person, deter=CLOSED, ucb=LENDER) as shown:
            command = ("operate", shown["id"], "run", "--node", "a", "--", "ping -c 2 -w 30 e")
            until(lambda: ", 0% packet loss" in person.fed("experiment", *command), "a pings e", PATIENCE)
            ports = [portal["host"] for segment in shown["segments"] for portal in segment["portals"]]
            assert sorted(filter(None, ports)) == [lab.plan.site(HOME).public]
        until(lambda: machines_at(lab, CLOSED) == machines_at(lab, LENDER) == [], "they hold nothing", PATIENCE)


def test_a_refusal_at_one_testbed_costs_nothing_anywhere(lab: Lab, person: Person) -> None:
    lab.run(HOME, ["tee", "/run/fedlab/tmp/unfit.ns"], text=SEED)
    wish = (
        "create",
        "/run/fedlab/tmp/unfit.ns",
        "--name",
        "unfit",
        "--map",
        f"deter={HOME}.test",
        "--map",
        "ucb=nobody.test",
    )
    done = person.fed_status("experiment", *wish)
    assert done.returncode in (1, 2), done.stderr
    assert "nobody.test" in done.stderr
    assert all(one["name"] != "unfit" for one in json.loads(person.fed("experiment", "list", "-o", "json")))
    assert machines_at(lab, HOME) == []


def test_somebody_else_sees_nothing_of_it_until_it_is_granted(lab: Lab, person: Person) -> None:
    stranger = Person(lab, HOME, "sven")
    config = str(RUN / HOME / "member/member.toml")
    fedid = {one["user"]: one["fedid"] for one in person.ask("member", "user", "list", "-c", config)}[stranger.name]
    with experiment(person) as shown:
        assert stranger.fed_status("experiment", "show", shown["id"]).returncode == 1
        assert stranger.fed_status("experiment", "terminate", shown["id"]).returncode == 1
        expired, revoked, good = (f"/run/fedlab/tmp/{name}.cred" for name in ("expired", "revoked", "good"))
        for file, until_then in ((expired, "2020-01-31T12:00:00+0000"), (revoked, "2999-01-31T12:00:00+0000")):
            granted = person.fed("experiment", "grant", "seed", fedid, "--until", until_then)
            lab.run(HOME, ["tee", file], text=granted)
        assert stranger.ask("experiment", "show", shown["id"], "--credential", revoked)["name"] == "seed"
        person.fed("experiment", "revoke", "seed", fedid)
        for file in (expired, revoked):
            done = stranger.fed_status("experiment", "terminate", shown["id"], "--credential", file)
            assert (done.returncode, "experiments.not_granted" in done.stderr) == (1, True)
        assert person.ask("experiment", "show", "seed")["state"] == "active"
        granted = person.fed("experiment", "grant", "seed", fedid, "--until", "2999-02-28T12:00:00+0000")
        lab.run(HOME, ["tee", good], text=granted)
        stranger.fed("experiment", "terminate", shown["id"], "--credential", good, "--follow", patience=PATIENCE)


def test_whoever_has_its_key_enters_its_nodes_with_nothing_else(lab: Lab, person: Person) -> None:
    with experiment(person):
        directory = "/run/fedlab/tmp/seed.ssh"
        person.fed("experiment", "credentials", "seed", "--into", directory)
        for name in "ae":  # one at each site
            command = ["ssh", "-F", f"{directory}/ssh_config", "-o", "BatchMode=yes", name, "hostname; id -u"]
            assert lab.run(USER, command).stdout.split() == [name, "0"]


def test_what_runs_goes_on_while_another_site_is_added(lab: Lab, person: Person) -> None:
    small, larger = "/run/fedlab/tmp/small.ns", "/run/fedlab/tmp/larger.ns"
    more = "set c [$ns node]\ntb-set-node-testbed $c ucb"
    lab.run(HOME, ["tee", small], text=LAN.replace("MORE", ""))
    lab.run(HOME, ["tee", larger], text=LAN.replace("MORE", more).replace("$a $b", "$a $b $c"))
    follow = ("--follow", "--timeout", str(PATIENCE))
    try:
        wish = ("--name", "grows", "--map", f"deter={HOME}.test", "--ssh-key", person.public_key)
        person.fed("experiment", "create", small, *wish, *follow, patience=PATIENCE)
        a = nodes_of(person.ask("experiment", "show", "grows"))["a"]
        person.at(a, "touch /tmp/stays")
        person.fed("experiment", "extend", "grows", larger, "--map", f"ucb={LENDER}.test", *follow, patience=PATIENCE)
        shown = person.ask("experiment", "show", "grows")
        assert nodes_of(shown)["a"] == a
        assert sorted(nodes_of(shown)) == ["a", "b", "c"]
        until(lambda: pinged(person, a, "c"), "a pings c", PATIENCE)
        assert person.at(a, "ls /tmp/stays").strip() == "/tmp/stays"
    finally:
        person.fed("experiment", "terminate", "grows", "--follow", patience=PATIENCE)
    for site in (HOME, LENDER):
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]
