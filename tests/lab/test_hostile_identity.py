"""Site A's XMPP server, taken over: it reads every credential that passes, and can neither get nor keep anything with them.

It holds the secrets of A's components, not A's key nor any user's. What it tries is refused with a code that B logs.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.places import PYTHON, RUN, SOURCES
from tests.lab.books import Books
from tests.lab.hostile.server import HostileServer
from tests.lab.journal import Journal
from tests.lab.order_steps import Life

pytestmark = pytest.mark.lab
HOME, LENDER = "site-a", "site-b"
CONFIG = str(RUN / HOME / "member/member.toml")
THIEF = ["env", f"PYTHONPATH={SOURCES}", str(PYTHON), "-m", "tests.lab.hostile.thief"]
SEEN = str(RUN / HOME / "member/seen.json")


LEASE = 15  # seconds; the longest that a machine outlives the right to it


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """Whose name is to be used."""
    victim = Person(lab, HOME, "trudy-s-victim")
    until(lambda: all(member["alive"] for member in victim.ask("members")), "all members are alive")
    return victim


@pytest.fixture(scope="module")
def server(lab: Lab, person: Person) -> Iterator[HostileServer]:
    """The victim's site's XMPP server in the attacker's hands; all that it begins with is to carry what it is given."""
    with HostileServer(lab, HOME).in_place() as hostile:
        until(lambda: all(member["alive"] for member in person.ask("members")), "all members are alive")
        yield hostile


@contextmanager
def _tapped(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """The home member, whose server reads along."""
    with lab.popen(HOME, [*THIEF, "tap", CONFIG], stdout=subprocess.PIPE) as process:
        try:
            _line(process, "ready")
            yield process
        finally:
            process.terminate()


def _line(process: subprocess.Popen[str], beginning: str) -> str:
    """The next line that begins so; the member's log stands between."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(beginning))


def test_what_the_server_reads_opens_nothing(lab: Lab, person: Person) -> None:
    lender = next(m["fedid"] for m in person.ask("members") if m["name"] == f"{LENDER}.test")
    journal = Journal(lab, f"{LENDER}/member")
    lab.stop(f"{HOME}/member")
    try:
        with _tapped(lab) as process:
            until(lambda: all(m["alive"] for m in person.ask("members")), "all members are alive")
            order = person.ask("order", "create", "--image", "debian", "--location", f"{LENDER}.test")[0]
            seen = json.loads(_line(process, '{"to"'))
            until(lambda: person.ask("order", "show", order["id"])["state"] == "fulfilled", "the order is fulfilled")
            assert len(seen["body"]["credentials"]) == 4
            person.delete(order)
        lab.run(HOME, ["sh", "-c", 'cat > "$1"', "sh", SEEN], text=json.dumps(seen))
        found = lab.run(HOME, [*THIEF, "rob", CONFIG, SEEN, lender], timeout=120)
        _check(json.loads(found.stdout.splitlines()[-1]), seen)
        assert journal.refusals("member.not_allowed", "lease.create")
        assert machines_at(lab, LENDER) == []
    finally:
        lab.start(f"{HOME}/member")


def _check(answers: dict[str, Any], seen: dict[str, Any]) -> None:
    """Nothing was lent, and each refusal says the right thing."""
    assert answers["replayed"] in ("mesh.replayed", "mesh.expired"), answers
    assert answers["in its member's name"]["code"] == "member.not_allowed", answers
    own = answers["in its own name"]
    assert own["code"] == "member.not_allowed", answers
    assert [f"{seen['body']['principal']}.acting_for <- {answers['thief']}"] in own["details"]["missing"]
    assert answers["as the user alone"]["code"], answers


def test_a_request_put_into_anothers_name_or_sent_from_elsewhere_is_refused(
    lab: Lab, person: Person, server: HostileServer
) -> None:
    person.delete(person.order("--location", f"{LENDER}.test"))  # the server has seen how it is asked for
    for deed, code in (
        ("resend", "mesh.replayed"),
        ("resend tunnel.site-a.test", "mesh.misdirected"),
        ("forge principal", "mesh.bad_signature"),
        ("forge name", "mesh.bad_signature"),
        ("forge credentials", "mesh.bad_signature"),
    ):
        journal = Journal(lab, f"{LENDER}/member")
        server.told(deed)
        journal.until(code, "lease.create")
        server.honest()
    assert Books.of(lab, LENDER) == Books.with_machines()


def test_a_server_that_lets_nobody_hear_of_a_revocation_keeps_a_machine_no_longer_than_its_lease(
    lab: Lab, person: Person, server: HostileServer
) -> None:
    order = person.order("--location", f"{LENDER}.test", "--lease", str(LEASE))
    life, journal = Life(lab, person), Journal(lab, f"{LENDER}/member")
    renewed = order["lease_expires"]
    until(lambda: life.show(order["id"])["lease_expires"] > renewed, "the server has seen a renewal")
    server.told("keep")
    person.account("revoke")
    server.has("keep", "rendezvous.revoke")
    journal.until("mesh.replayed", "lease.sync")
    ended = life.reaches(order["id"], "closed")
    assert ended["code"] == "member.revoked"
    until(lambda: Books.of(lab, LENDER) == Books.with_machines(), "its lease has ended")
    server.honest()
    person.account("restore")
