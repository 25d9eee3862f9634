"""What a person may get wrong in an order: told at once by `fed`, with its exit status, its code and the word that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.places import RUN
from fedkit.protocol.lending import USER_DATA_LIMIT

pytestmark = pytest.mark.lab
CREATE = ("order", "create", "-o", "json", "--image", "debian")
SCRIPT = "#!/bin/sh\n"
USER_DATA = str(RUN / "people/user-data")


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A user who sees all members."""
    frank = Person(lab, "site-a", "frank")
    until(lambda: sum(m["alive"] for m in frank.ask("members")) == len(lab.plan.sites), "all members are alive")
    return frank


@pytest.fixture(autouse=True)
def nothing_is_left(lab: Lab, person: Person) -> Iterator[None]:
    """Whatever stands open is given back, and no site has made anything of it."""
    yield
    for order in person.ask("order", "list"):
        person.delete(order)
    assert [machines_at(lab, site.name) for site in lab.plan.sites] == [[]] * len(lab.plan.sites)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (["--image", "debain"], "the image debain is not offered by any known member; did you mean debian?"),
        (["--flavour", "smal"], "the flavour smal is not offered by any known member; did you mean small?"),
        (["--location", "site-x.test"], "no member site-x.test is known; did you mean"),
        (["-r", "vcpu >= 1 && ram_mb >= 999999"], "nothing at any known member meets: ram_mb >= 999999"),
        (["-r", "Glue2vCPU >= 1 && Glue2RAM >= 999999"], "nothing at any known member meets: Glue2RAM >= 999999"),
    ],
)
def test_what_nobody_offers_stands_open_and_says_which_clause(person: Person, wish: list[str], told: str) -> None:
    """A member that offers it may come tomorrow, so the order is made; whoever does not want to wait is told why."""
    done = person.fed_status(*CREATE, *wish)
    assert done.returncode == 0
    order = json.loads(done.stdout)[0]
    assert (order["state"], order["code"]) == ("open", "orders.unmet_requirements")
    assert order["reason"].startswith(told)
    assert told in done.stderr
    waited = person.fed_status("order", "watch", order["id"], "--timeout", "0.5")
    assert (waited.returncode, waited.stdout) == (4, "")
    assert told in waited.stderr
    assert "[cli.timed_out]" in waited.stderr


@pytest.mark.parametrize(
    ("wish", "code", "told"),
    [
        (["-r", "vcpu >= "], "orders.unusable_requirements", "column 8"),
        (["-r", "vcpus >= 1"], "orders.unknown_requirement", "did you mean vcpu?"),
        (["-r", "Glue2vCPUs >= 1"], "orders.unknown_requirement", "did you mean Glue2vCPU?"),
        (["--kind", "castle"], "web.invalid", "castle"),
        (["--network", "00000000-0000-4000-8000-000000000000"], "orders.unknown_network", "You have no network order"),
        (["--user-data", "/nowhere"], "cli.unusable_file", "/nowhere cannot be read"),
    ],
)
def test_what_can_never_be_is_refused(person: Person, wish: list[str], code: str, told: str) -> None:
    _is_refused(person, wish, code, told)


@pytest.mark.parametrize(
    ("octets", "code", "told"),
    [
        (USER_DATA_LIMIT + 1, "web.invalid", f"user_data: String should have at most {USER_DATA_LIMIT} characters"),
        (3 * USER_DATA_LIMIT, "web.too_large", "A body may have 512 KiB at most"),
    ],
)
def test_too_large_user_data_is_refused(lab: Lab, person: Person, octets: int, code: str, told: str) -> None:
    _write_user_data(lab, SCRIPT.ljust(octets, "#"))
    _is_refused(person, ["--user-data", USER_DATA], code, told)


def test_the_largest_user_data_is_taken_across_the_mesh(lab: Lab, person: Person) -> None:
    _write_user_data(lab, SCRIPT.ljust(USER_DATA_LIMIT, "#"))
    order = person.order("--location", "site-b.test", "--user-data", USER_DATA)
    assert order["spec"]["user_data_octets"] == USER_DATA_LIMIT
    person.delete(order)


def test_user_data_that_no_lender_understands_is_told_by_each(lab: Lab, person: Person) -> None:
    _write_user_data(lab, "#cloud-config\napt: {}\n")
    order = person.ask(*CREATE, "--user-data", USER_DATA)[0]
    told = until(
        lambda: (now := person.ask("order", "show", order["id"]))["reason"].count("apt is not supported") == 3 and now,
        "each member has refused",
    )
    assert (told["state"], told["code"]) == ("open", "middleware.unusable_spec")


def test_the_same_idempotency_key_gives_the_same_order(lab: Lab, person: Person) -> None:
    """Also when both come at the same moment; and another wish under the key is refused."""
    submit = (*CREATE, "--flavour", "none", "--idempotency-key", "a-key")
    again = (person.ask(*submit)[0] for _ in range(2))
    assert len({order["id"] for order in again}) == 1
    at_once = [person.begin(*CREATE, "--flavour", "none", "--idempotency-key", "another") for _ in range(3)]
    made = [json.loads(process.communicate()[0])[0]["id"] for process in at_once]
    assert len(set(made)) == 1
    assert len(person.ask("order", "list")) == 2
    _is_refused(person, ["--flavour", "other", "--idempotency-key", "a-key"], "orders.idempotency_conflict", "", 1)


def _is_refused(person: Person, wish: list[str], code: str, told: str, status: int = 2) -> None:
    done = person.fed_status(*CREATE, *wish)
    assert (done.returncode, done.stdout) == (status, "")
    assert told in done.stderr
    assert f"[{code}]" in done.stderr
    listed: list[dict[str, Any]] = person.ask("order", "list")
    assert all(wish[-1] not in str(order["spec"]) for order in listed)


def _write_user_data(lab: Lab, text: str) -> None:
    lab.run("site-a", ["tee", USER_DATA], text=text)
