"""Who gets what of another site, and why: a project's machines, revocation, local accounts, an operator's own account.

Site B lends by the rules below; everything is asked for at site A, with `fed`, as A's users do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, until
from deploy.lab.places import directory
from tests.lab.books import Books
from tests.lab.order_steps import Life
from tests.lab.policies import days_about_now, fedid, policy

pytestmark = pytest.mark.lab
HOME, LENDER = "site-a", "site-b"
REVOKED_WITHIN = 10.0  # seconds
OPEN, SHUT = days_about_now(-1, 1), days_about_now(3, 5)  # right even if the day ends meanwhile
SMALL: dict[str, Any] = {"may": ["compute"], "flavours": ["small"]}
RULES: list[dict[str, Any]] = [
    {"name": "night", "who": ["site-a/night/*"], "hours": SHUT, **SMALL},
    {"name": "proj1-small", "who": ["site-a/proj1/*"], "count": 2, "hours": OPEN, **SMALL}
    | {"account": {"create": "fed-{project}"}},
]
OPERATORS: list[dict[str, Any]] = [
    {"name": "the-member", "who": ["site-a"], "may": ["*"]},  # site A itself, which is nobody's user
    {"name": "its-operator", "who": ["site-a/*/root"], "may": ["*"]},
]
PEOPLE = {
    "anna": ("proj1",),
    "ben": ("proj2",),
    "nina": ("night",),
    "carl": ("proj2", "proj1"),
    "root": ("proj2",),
}
SMALL_AT_LENDER = ("--flavour", "small", "--location", f"{LENDER}.test")

Orders = list[tuple[Person, dict[str, Any]]]


@pytest.fixture(scope="module", autouse=True)
def rules(lab: Lab) -> Iterator[None]:
    """What site B lends, and to whom."""
    with policy(lab, LENDER, *RULES):
        yield


@pytest.fixture(scope="module")
def people(lab: Lab) -> dict[str, Person]:
    """Users of site A in their projects; root is its operator."""
    with ThreadPoolExecutor(3) as pool:
        made = pool.map(lambda one: Person(lab, HOME, one[0], one[1], operator=one[0] == "root"), PEOPLE.items())
        found = {person.name: person for person in made}
    until(lambda: all(member["alive"] for member in found["anna"].ask("members")), "all members are alive")
    return found


@pytest.fixture(scope="module")
def auditor(lab: Lab) -> Person:
    """Who reads the audit log of site B."""
    return Person(lab, LENDER, "auditor", operator=True)


@pytest.fixture
def orders(lab: Lab) -> Iterator[Orders]:
    """Orders put here are deleted at the end, whatever happened; then nothing is lent, and no account is left."""
    made: Orders = []
    yield made
    for owner, order in made:
        owner.delete(order)
    until(lambda: Books.of(lab, LENDER) == Books.with_machines(), "nothing is lent")
    until(lambda: not made_accounts(lab, LENDER), "no account is left")


def made_accounts(lab: Lab, site: str) -> list[str]:
    """The accounts that a site's middleware keeps for the federation."""
    folder = directory(lab.plan.site(site), "member") / "machines/accounts"
    return lab.run(site, ["ls", str(folder)]).stdout.split()


def begin(person: Person, *options: str) -> dict[str, Any]:
    """Order a small machine at B, or what the options say."""
    made: dict[str, Any] = person.ask("order", "create", "--image", "debian", *(options or SMALL_AT_LENDER))[0]
    return made


def refusals(lab: Lab, person: Person, order: dict[str, Any]) -> list[dict[str, Any]]:
    """Wait until an order was refused, and return its attempts."""
    life = Life(lab, person)

    def refused() -> list[dict[str, Any]] | None:
        attempts: list[dict[str, Any]] = life.rest("GET", f"orders/{order['id']}/why")["attempts"]
        return attempts if attempts and attempts[-1]["state"] == "refused" else None

    return until(refused, "the order is refused")


def said(person: Person, order: dict[str, Any]) -> str:
    """What `fed order why` tells a person."""
    told = person.fed_status("order", "why", order["id"])
    assert told.returncode == 0
    return told.stderr + told.stdout


def principal(attempt: dict[str, Any]) -> str:
    """The fedid of the user for whom an attempt was made."""
    statement = next(sent["statement"] for sent in attempt["sent"] if ".user <- " in sent["statement"])
    return str(statement).rpartition(" ")[2]


def rests_on(proof: dict[str, Any]) -> set[str]:
    """All statements of a proof."""
    return {step["statement"] for proof in proof["proofs"] for step in proof}


def first_denied(decisions: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    """The oldest decision, of those newest first, that denied somebody something."""
    found = [entry["said"] for entry in decisions if entry["said"]["applicant"]["name"] == name]
    denied: dict[str, Any] = [one for one in found if not one["allowed"]][-1]
    return denied


def test_a_project_has_two_machines_and_everybody_learns_why(
    lab: Lab, people: dict[str, Person], auditor: Person, orders: Orders
) -> None:
    anna, ben, nina = people["anna"], people["ben"], people["nina"]
    a, b = fedid(lab, HOME), fedid(lab, LENDER)
    orders += [(ben, begin(ben)), (nina, begin(nina))]
    by_ben, by_nina = refusals(lab, *orders[0])[0], refusals(lab, *orders[1])[0]
    told_ben = said(ben, orders[0][1])
    lent = anna.orders("--count", "2", *SMALL_AT_LENDER)
    orders += [(anna, order) for order in lent]
    assert [anna.ssh(order, "echo hello").strip() for order in lent] == ["hello"] * 2
    third = begin(anna)
    orders.append((anna, third))
    by_anna = refusals(lab, anna, third)[0]

    # What its people are told.
    assert by_ben["code"] == by_nina["code"] == by_anna["code"] == "member.not_allowed"
    assert by_ben["missing"] == [[f"{a}.project_proj1 <- {principal(by_ben)}"]]
    assert by_nina["reason"].startswith(f"Rule night lends only {SHUT}; there it is ")
    assert by_anna["reason"] == "Rule proj1-small lends 2 at the same time, and 2 exist."
    running = anna.ask("order", "why", lent[0]["id"])["attempts"][0]
    goal = f"{b}.rule_proj1-small <- {a}.project_proj1"
    assert {goal, f"{a}.project_proj1 <- {principal(running)}"} <= rests_on(running["proof"])
    assert "site-b.test lends to proj1/anna by its rule proj1-small:" in said(anna, lent[0])
    assert f"home:{a[:8]}.project_proj1 <- ben:" in told_ben
    assert by_nina["reason"] in said(nina, orders[1][1])
    assert by_anna["reason"] in said(anna, third)

    # What B's operator finds.
    decided = {entry["said"]["lease"]: entry for entry in auditor.ask("audit", "list", "--kind", "decision")}
    allowed = decided[lent[0]["lease_id"]]["said"]
    assert allowed["allowed"]
    assert rests_on(allowed) == rests_on(running["proof"])
    for name, attempt in (("proj2/ben", by_ben), ("night/nina", by_nina), ("proj1/anna", by_anna)):
        denied = first_denied(decided.values(), f"{a}/{name}")
        assert denied["reason"].partition("; there")[0] == attempt["reason"].partition("; there")[0]  # the minute apart
        assert denied["missing"] == attempt["missing"]
    shown = auditor.ask("audit", "show", str(decided[lent[0]["lease_id"]]["sequence"]))
    assert set(shown["said"]["credentials"]) <= set(shown["texts"])
    assert "proj1-small" in shown["texts"][shown["said"]["policy"]]
    assert auditor.ask("audit", "verify")["good"]
    assert anna.fed_status("audit", "list").returncode == 1  # site A's user, and no operator
    page = Life(lab, auditor).rest("GET", "audit?kind=decision&limit=100")["items"]
    assert lent[0]["lease_id"] in {entry["said"]["lease"] for entry in page}


def test_an_account_is_there_while_the_project_has_machines(
    lab: Lab, people: dict[str, Person], orders: Orders
) -> None:
    assert made_accounts(lab, LENDER) == []
    lent = people["anna"].orders("--count", "2", *SMALL_AT_LENDER)
    orders += [(people["anna"], order) for order in lent]
    assert made_accounts(lab, LENDER) == ["fed-proj1"]
    people["anna"].delete(lent[0])
    assert made_accounts(lab, LENDER) == ["fed-proj1"]
    people["anna"].delete(lent[1])
    until(lambda: made_accounts(lab, LENDER) == [], "the account is gone")


def test_a_user_is_tried_in_each_project(lab: Lab, people: dict[str, Person], orders: Orders) -> None:
    carl = people["carl"]
    order = carl.order(*SMALL_AT_LENDER)
    orders.append((carl, order))
    attempts = carl.ask("order", "why", order["id"])["attempts"]
    home = fedid(lab, HOME)
    assert [(attempt["name"], attempt["state"]) for attempt in attempts] == [
        (f"{home}/proj2/carl", "refused"),
        (f"{home}/proj1/carl", "running"),
    ]
    told = said(carl, order)
    assert "proj2/carl" in told
    assert "proj1/carl" in told
    assert carl.ssh(order, "echo hello").strip() == "hello"


@pytest.mark.parametrize(
    ("name", "deed", "undo"),
    [("anna", "revoke", "restore"), ("carl", "projects --project proj2", "projects --project proj2 --project proj1")],
    ids=["user", "project"],
)
def test_a_revocation_ends_what_runs_and_what_is_asked_for(
    lab: Lab, people: dict[str, Person], auditor: Person, orders: Orders, name: str, deed: str, undo: str
) -> None:
    person, life = people[name], Life(lab, people[name])
    order = person.order(*SMALL_AT_LENDER)
    orders.append((person, order))
    tunnel = person.tunnel(order)
    person.account(*deed.split())
    until(lambda: Books.of(lab, LENDER) == Books.with_machines(), "the machine is gone", REVOKED_WITHIN)
    until(partial(person.refused, tunnel), "its port is closed", REVOKED_WITHIN)
    until(lambda: not made_accounts(lab, LENDER), "its account is gone", REVOKED_WITHIN)

    ended = life.reaches(order["id"], "closed")
    assert ended["code"] == "member.revoked"
    assert f"lost at {LENDER}.test: {fedid(lab, HOME)} has revoked what it rested on: " in ended["reason"]
    assert "member.revoked" in said(person, order)
    released = auditor.ask("audit", "list", "--kind", "release", "--last", "1")[0]["said"]
    assert (released["lease"], released["code"]) == (order["lease_id"], "member.revoked")
    assert auditor.ask("audit", "verify")["good"]

    again = begin(person)
    orders.append((person, again))
    code = until(lambda: life.show(again["id"])["code"], "it is refused")
    assert code == ("credentials.suspended" if deed == "revoke" else "member.not_allowed")
    assert Books.of(lab, LENDER) == Books.with_machines()
    person.account(*undo.split())
    life.reaches(again["id"], "fulfilled")


def test_the_operator_of_a_site_gives_its_users_nothing(lab: Lab, people: dict[str, Person], orders: Orders) -> None:
    root, ben, home = people["root"], people["ben"], fedid(lab, HOME)
    with policy(lab, LENDER, *OPERATORS):
        orders.append((root, root.order("--location", f"{LENDER}.test")))
        orders.append((ben, begin(ben, "--location", f"{LENDER}.test")))
        attempt = refusals(lab, *orders[-1])[0]
        user = principal(attempt)
        assert attempt["code"] == "member.not_allowed"
        # He would have to be root: what A itself is given helps none of its users.
        assert [f"{home}.user_root <- {user}"] in attempt["missing"]
        assert not [said for wanted in attempt["missing"] for said in wanted if said.endswith(f" <- {home}")]
