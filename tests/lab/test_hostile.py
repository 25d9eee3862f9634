"""An XMPP server in the middle that alters, repeats, readdresses, swaps, loses and refuses: nothing of it takes effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from tests.lab.hostile.server import HostileServer
from tests.lab.journal import Journal

pytestmark = pytest.mark.lab
HOME, LENDER, OTHER = "site-a", "site-b", "site-c"


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    return Person(lab, HOME, "mallory-s-victim")


@pytest.fixture(scope="module")
def running_server(lab: Lab) -> Iterator[HostileServer]:
    """The home member's own server, in the attacker's hands."""
    with HostileServer(lab, HOME).in_place() as hostile:
        yield hostile


@pytest.fixture
def server(lab: Lab, person: Person, running_server: HostileServer) -> Iterator[HostileServer]:
    """The same; honest at both ends of a test, with all members in sight."""
    until(lambda: _alive(person) == len(lab.plan.sites), "all members are alive")
    yield running_server
    running_server.honest()
    for order in person.ask("order", "list"):
        if order["state"] not in ("deleted", "deleting"):
            person.delete(order)
    assert machines_at(lab, LENDER) == []


def _alive(person: Person) -> int:
    return sum(member["alive"] for member in person.ask("members"))


def _order(person: Person) -> dict[str, Any]:
    order: dict[str, Any] = person.ask("order", "create", "--image", "debian", "--location", f"{LENDER}.test")[0]
    return order


def _state(person: Person, order: dict[str, Any]) -> str:
    return str(person.ask("order", "show", order["id"])["state"])


def _ends_well(lab: Lab, person: Person, order: dict[str, Any]) -> None:
    """The order runs on exactly one machine, and stays so when every attempt at it is over."""
    until(lambda: _state(person, order) == "fulfilled", "the order is fulfilled")
    until(lambda: len(_machines(lab)) == 1, f"{LENDER} has one machine")
    lease = person.ask("order", "show", order["id"])["lease_id"]
    assert lease in _machines(lab)[0]
    assert _state(person, order) == "fulfilled"


def _machines(lab: Lab) -> list[str]:
    return [name for name in machines_at(lab, LENDER) if name.endswith("record.json")]


@pytest.mark.parametrize(
    ("deed", "at", "code"),
    [
        pytest.param("alter 1", LENDER, "mesh.malformed", id="header-altered"),
        pytest.param("alter 2", LENDER, "mesh.bad_signature", id="payload-altered"),
        pytest.param("alter 3", LENDER, "mesh.bad_signature", id="signature-altered"),
        pytest.param("readdress fm.site-c.test", OTHER, "mesh.misdirected", id="readdressed"),
        pytest.param("impersonate tunnel.site-a.test", LENDER, "mesh.misdirected", id="for-another-sender"),
    ],
)
def test_a_request_meddled_with_is_refused_and_logged(
    lab: Lab, person: Person, server: HostileServer, deed: str, at: str, code: str
) -> None:
    journal = Journal(lab, f"{at}/member")
    server.told(deed)
    order = _order(person)
    journal.until(code, "lease.create")
    assert machines_at(lab, LENDER) == []
    assert _state(person, order) == "open"
    server.honest()
    _ends_well(lab, person, order)


def test_a_repeated_request_takes_effect_once(lab: Lab, person: Person, server: HostileServer) -> None:
    journal = Journal(lab, f"{LENDER}/member")
    server.told("repeat")
    order = _order(person)
    journal.until("mesh.replayed", "lease.create")
    _ends_well(lab, person, order)


def test_a_request_replayed_after_its_machine_is_gone_makes_no_other(
    lab: Lab, person: Person, server: HostileServer
) -> None:
    order = _order(person)
    _ends_well(lab, person, order)
    person.delete(order)
    journal = Journal(lab, f"{LENDER}/member")
    server.told("resend")
    journal.until("mesh.replayed", "lease.create")
    assert machines_at(lab, LENDER) == []


def test_answers_swapped_are_no_answers(lab: Lab, person: Person, server: HostileServer) -> None:
    journal = Journal(lab, f"{HOME}/member")
    server.told("swap")
    order = _order(person)
    journal.until("mesh.bad_answer")
    server.honest()
    _ends_well(lab, person, order)


@pytest.mark.parametrize("deed", ["lose", "refuse"])
def test_a_server_that_loses_answers_or_refuses_for_the_peer_only_costs_time(
    lab: Lab, person: Person, server: HostileServer, deed: str
) -> None:
    server.told(deed)
    order = _order(person)
    server.has(deed, "lease.create")
    server.honest()
    _ends_well(lab, person, order)
