"""Site A's XMPP server, taken over: it reads every credential that passes, and can do nothing in a user's name with them."""

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

pytestmark = pytest.mark.lab
HOME, LENDER = "site-a", "site-b"
CONFIG = str(RUN / HOME / "member/member.toml")
THIEF = ["env", f"PYTHONPATH={SOURCES}", str(PYTHON), "-m", "tests.lab.hostile.thief"]
SEEN = str(RUN / HOME / "member/seen.json")


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


def test_what_the_server_reads_opens_nothing(lab: Lab) -> None:
    person = Person(lab, HOME, "trudy-s-victim")
    lender = next(m["fedid"] for m in person.ask("members") if m["name"] == f"{LENDER}.test")
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
