"""A lender that is announced and cannot be trusted or reached: orders go to the next one, or say why they wait; nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from tests.lab.books import Books
from tests.lab.hostile.member import lying

pytestmark = pytest.mark.lab
HOME, LENDER, NEXT = "site-a", "site-b", "site-c"
NOT_AT_HOME = f'member != "{HOME}.test"'
ASK = ("order", "create", "--image", "debian")

Trouble = Callable[[Lab], AbstractContextManager[None]]


@contextmanager
def _expired(lab: Lab) -> Iterator[None]:
    """The certificate of the lender's XMPP server ended yesterday."""
    lab.certificate(LENDER, "expired")
    try:
        yield
    finally:
        lab.certificate(LENDER, "good")


TROUBLES: dict[str, Trouble] = {
    **{lie: partial(lying, site=LENDER, lie=lie) for lie in ("silent", "noise", "nonsense", "another")},
    "expired certificate": _expired,
}


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A user at the first site."""
    return Person(lab, HOME, "grace")


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
def test_orders_go_to_the_next_lender_and_say_why_where_there_is_none(
    lab: Lab, person: Person, trouble: Trouble
) -> None:
    until(lambda: sum(m["alive"] for m in person.ask("members")) == len(lab.plan.sites), "all members are alive")
    with trouble(lab):
        waiting = person.ask(*ASK, "--location", f"{LENDER}.test")[0]
        told = until(partial(_gave_up, person, waiting), "the order says why it waits")
        assert told["state"] == "open"
        assert told["reason"] in (f"{LENDER}.test: did not answer in time", f"{LENDER}.test: does not answer")
        # Round robin: of two orders, one would be the untrustworthy lender's.
        served = person.ask(*ASK, "--requirements", NOT_AT_HOME, "--count", "2", "--wait", "--timeout", "60")
        assert {order["member"] for order in served} == {f"{NEXT}.test"}
        assert Books.of(lab, NEXT) == Books.with_machines(*(order["lease_id"] for order in served))
        assert machines_at(lab, LENDER) == []
    for order in (waiting, *served):
        person.delete(order)
    assert [Books.of(lab, site) for site in (HOME, LENDER, NEXT)] == [Books.with_machines()] * 3


def _gave_up(person: Person, order: dict[str, Any]) -> dict[str, Any] | None:
    shown: dict[str, Any] = person.ask("order", "show", order["id"])
    return shown if shown["code"].startswith("mesh.") else None
