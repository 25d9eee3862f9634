"""A site that lets nothing in, beside a peer that cannot answer over its connection (ejabberd has no XEP-0288).

What such a site does for and with the others stands in `test_federation.py`; here is what happens where it cannot work, and that
it comes back by itself after the server that it depends on was killed.
"""

from __future__ import annotations

from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until

pytestmark = pytest.mark.lab
OPEN, CLOSED, ONE_WAY = "site-a", "site-c", "site-b"


@pytest.fixture(scope="module")
def people(lab: Lab) -> dict[str, Person]:
    """Somebody at each site who sees all members."""
    people = {site.name: Person(lab, site.name, "carol") for site in lab.plan.sites}
    for person in people.values():
        until(lambda who=person: _alive(who) == len(lab.plan.sites), "all members are alive")  # type: ignore[misc]
    return people


def _alive(person: Person) -> int:
    return sum(member["alive"] for member in person.ask("members"))


def _show(person: Person, order: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = person.ask("order", "show", order["id"])
    return shown


@pytest.mark.parametrize(("borrower", "lender"), [(ONE_WAY, CLOSED), (CLOSED, ONE_WAY)])
def test_where_no_answer_can_come_the_order_says_so(
    lab: Lab, people: dict[str, Person], borrower: str, lender: str
) -> None:
    person = people[borrower]
    order = person.ask("order", "create", "--image", "debian", "--location", f"{lender}.test")[0]
    told = until(
        lambda: (now := _show(person, order))["code"].startswith("mesh.") and now, "the order says why it waits"
    )
    assert told["state"] == "open"
    assert told["reason"] in (f"{lender}.test: did not answer in time", f"{lender}.test: does not answer")
    deleting = person.ask("order", "delete", order["id"])
    assert f"waits for {lender}.test to confirm" in str(deleting)
    # A request may have come through where its answer could not: what it made goes as well.
    until(lambda: not machines_at(lab, lender), f"{lender} holds nothing")


def test_nobody_else_waits_for_the_one_that_cannot_be_reached(lab: Lab, people: dict[str, Person]) -> None:
    order = people[ONE_WAY].order("--requirements", "attributes.gpu == false")
    assert order["member"] == f"{OPEN}.test"
    people[ONE_WAY].delete(order)


def test_it_comes_back_after_its_peer_s_server_was_killed(lab: Lab, people: dict[str, Person]) -> None:
    lab.restart(f"{OPEN}/xmpp")
    order = people[OPEN].order("--location", f"{CLOSED}.test", "--timeout", "110")
    assert order["member"] == f"{CLOSED}.test"
    people[OPEN].delete(order)
    assert machines_at(lab, CLOSED) == []
