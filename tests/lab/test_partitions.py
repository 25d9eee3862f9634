"""A lender is cut off at each step of an order's life, packets vanishing without a word: the order ends where it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, until
from tests.lab.books import Books
from tests.lab.order_steps import BEGINNINGS, HOME, LENDER, Life

pytestmark = pytest.mark.lab

SHORTEST_LEASE = 10  # seconds


@pytest.fixture(scope="module")
def life(lab: Lab) -> Life:
    """Orders of a user at the first site."""
    return Life(lab, Person(lab, HOME, "peggy"))


@pytest.fixture(autouse=True)
def joined_again(lab: Lab) -> Iterator[None]:
    """No test leaves the sites apart."""
    yield
    lab.heal(LENDER)


@pytest.mark.parametrize("step", BEGINNINGS)
def test_cut_off_before_the_machine_runs(lab: Lab, life: Life, step: str) -> None:
    with BEGINNINGS[step](life) as order_id:
        lab.partition(LENDER)
    if step in ("submitted", "asked"):
        until(lambda: "asks" not in life.show(order_id)["reason"], "the borrower no longer waits for the answer")
    else:
        until(lambda: Books.of(lab, LENDER).running, "the lender goes on alone")
    lab.heal(LENDER)
    life.settles_fulfilled(order_id)
    life.is_given_back(order_id)


def test_cut_off_while_a_lease_is_renewed(lab: Lab, life: Life) -> None:
    order_id = life.begin()
    first = life.settles_fulfilled(order_id)[0]
    lab.partition(LENDER)
    lab.restart(f"{HOME}/member")  # it asks for all its leases when it starts
    assert life.show(order_id)["state"] == "fulfilled"
    lab.heal(LENDER)
    assert life.settles_fulfilled(order_id)[0]["lease_id"] == first["lease_id"]
    life.is_given_back(order_id)


def test_deleting_waits_for_a_lender_that_is_cut_off_and_says_so(lab: Lab, life: Life) -> None:
    order_id = life.begin()
    order = life.settles_fulfilled(order_id)[0]
    lab.partition(LENDER)
    life.delete(order_id)
    lab.restart(f"{HOME}/member")  # forgets nothing
    deleting = life.show(order_id)
    assert deleting["state"] == "deleting"
    assert f"waits for {lab.plan.site(LENDER).domain} to confirm" in deleting["reason"]
    assert "its lease ends by itself at" in deleting["reason"]
    assert Books.of(lab, LENDER) == Books.with_machines(order["lease_id"])
    lab.heal(LENDER)
    life.settles_deleted(order_id)


def test_a_lender_cut_off_for_longer_than_the_lease_keeps_no_machine(lab: Lab, life: Life) -> None:
    one_time, persistent = (life.begin(lease_seconds=SHORTEST_LEASE, type=kind) for kind in ("one-time", "persistent"))
    first = {order_id: life.reaches(order_id, "fulfilled") for order_id in (one_time, persistent)}
    life.books_become(LENDER, *(order["lease_id"] for order in first.values()))
    lab.partition(LENDER)
    life.books_become(LENDER)
    lost = life.reaches(one_time, "closed")
    assert "lost at site-b.test: silent since" in lost["reason"]
    assert lost["instance"] is None
    again = life.reaches(persistent, "open")
    assert again["code"]
    assert again["instance"] is None
    lab.heal(LENDER)
    order = life.settles_fulfilled(persistent)[0]
    assert order["lease_id"] != first[persistent]["lease_id"]
    life.is_given_back(one_time, persistent)
