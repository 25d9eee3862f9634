"""The seed's experiment while processes are killed with -9: in each part of its life two members and a tunnel server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.errors import LabFailed
from deploy.lab.person import Person, machines_at, until
from tests.lab.books import Books
from tests.lab.order_steps import HOME, LENDER
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
FILE = "/run/fedlab/tmp/killed.ns"
NAME = "killed"
PATIENCE = 240.0
VICTIMS = [f"{HOME}/member", f"{LENDER}/member", f"{LENDER}/tunnel"]
ENDS = {"failed", "terminated"}


@pytest.fixture(autouse=True)
def everything_runs_again(lab: Lab) -> Iterator[None]:
    """Whatever the test killed and did not start again is started, for the tests that follow."""
    yield
    for role, service in lab.status().items():
        if service["pid"] is None:
            lab.start(role)


def is_in(person: Person, *states: str) -> Callable[[], dict[str, Any] | None]:
    """The experiment, once it is in one of these states; it must not have ended otherwise."""

    def look() -> dict[str, Any] | None:
        done = person.fed_status("experiment", "show", NAME, "-o", "json")
        if done.returncode != 0:  # its member is just starting
            return None
        shown: dict[str, Any] = json.loads(done.stdout)
        assert shown["state"] in states or shown["state"] not in ENDS, shown["reason"]
        return shown if shown["state"] in states else None

    return look


def reaches(person: Person, node: dict[str, Any]) -> bool:
    """Whether one enters a node, and from there the last one is reached."""
    try:
        return "0% packet loss" in person.at(node, "ping -c 2 -w 5 e; true")
    except LabFailed:  # its tunnel has not come back yet
        return False


def test_it_comes_up_stays_joined_and_goes_whoever_is_killed(lab: Lab) -> None:
    person = Person(lab, HOME, "kilian")
    lab.run(HOME, ["tee", FILE], text=SEED)
    places = ("--map", f"deter={HOME}.test", "--map", f"ucb={LENDER}.test")
    person.fed("experiment", "create", FILE, "--name", NAME, "--ssh-key", person.public_key, *places)
    for victim in VICTIMS:  # while it starts and joins, or, on a quick machine, when it has just done so
        lab.restart(victim)
        until(is_in(person, "starting", "joining", "active"), "it goes on", PATIENCE)
    active = until(is_in(person, "active"), "it is active", PATIENCE)
    nodes = {node["name"]: node for segment in active["segments"] for node in segment["nodes"]}
    until(lambda: reaches(person, nodes["a"]), "a pings e", PATIENCE)
    for victim in VICTIMS:
        lab.restart(victim)
    until(lambda: reaches(person, nodes["a"]), "a pings e again", PATIENCE)
    until(is_in(person, "active"), "it is active again", PATIENCE)
    person.fed("experiment", "terminate", NAME)
    for victim in VICTIMS:
        lab.restart(victim)
    until(is_in(person, "terminated"), "it has ended", PATIENCE)
    for site in (HOME, LENDER):
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]
        until(lambda site=site: Books.of(lab, site) == Books.with_machines(), "its books say so", PATIENCE)  # type: ignore[misc]
