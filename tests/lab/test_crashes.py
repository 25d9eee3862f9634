"""Each process is killed with -9 at each step of an order's life and started again: the order ends where it should."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, until
from tests.lab.order_steps import HOME, LENDER, Life, asked, deleting, pending, renewing, running, submitted

pytestmark = pytest.mark.lab

VICTIMS = [f"{HOME}/member", f"{LENDER}/member", f"{HOME}/xmpp", f"{LENDER}/xmpp", f"{HOME}/rendezvous"]
VICTIMS += [f"{LENDER}/tunnel"]


@pytest.fixture(scope="module")
def life(lab: Lab) -> Life:
    """Orders of a user at the first site."""
    return Life(lab, Person(lab, HOME, "victor"))


@pytest.fixture(autouse=True)
def nothing_is_left(lab: Lab) -> Iterator[None]:
    """Whatever a test killed and did not start again is started, for the tests that follow."""
    yield
    for role, service in lab.status().items():
        if service["pid"] is None:
            lab.start(role)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_before_the_machines_run(lab: Lab, life: Life, victim: str) -> None:
    with ExitStack() as halted:  # one order at each step; the steps nearest to the machine first, since they halt least
        orders = [halted.enter_context(step(life)) for step in (pending, asked, submitted)]
        lab.kill(victim)
    lab.start(victim)
    life.settles_fulfilled(*orders)
    life.is_given_back(*orders)


@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_while_the_machine_is_made_runs_and_is_given_back(lab: Lab, life: Life, victim: str) -> None:
    order_id = life.begin()
    lab.restart(victim)
    first = life.settles_fulfilled(order_id)[0]
    for step in (running, renewing):
        with step(life, order_id):
            lab.kill(victim)
        lab.start(victim)
        order = life.settles_fulfilled(order_id)[0]
        assert (order["lease_id"], order["instance"]) == (first["lease_id"], first["instance"])
    with deleting(life, order_id):
        lab.kill(victim)
    lab.start(victim)
    life.settles_deleted(order_id)


def test_without_the_rendezvous_members_go_on_ordering_and_say_so(lab: Lab, life: Life) -> None:
    people = {LENDER: life.person, HOME: Person(lab, LENDER, "erin")}
    lab.kill(f"{HOME}/rendezvous")
    try:
        for site in (HOME, LENDER):
            lab.restart(f"{site}/member")  # it would notice by itself when it next announces itself, within 30 s
        for lender, person in people.items():
            until(lambda who=person: "working with the list of" in who.fed_status("members").stderr, "it is said")  # type: ignore[misc]
            order = person.order("--location", lab.plan.site(lender).domain)
            life.books_become(lender, order["lease_id"])
            person.delete(order)
            life.books_become(lender)
    finally:
        lab.start(f"{HOME}/rendezvous")
    for person in people.values():
        until(lambda who=person: not who.fed_status("members").stderr, "the list is current again")  # type: ignore[misc]
