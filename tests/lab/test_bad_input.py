"""Misconfigured and exhausted parts, told with their codes where the person looks; the rest of bad input is in lower rings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.places import RUN

pytestmark = pytest.mark.lab
LENDER = "site-b"
READY = "import urllib.request as u, sys\ntry: u.urlopen(sys.argv[1])\nexcept Exception as e: print(e.code, e.read())"


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A user at the first site who sees the lender."""
    dave = Person(lab, "site-a", "dave")
    until(lambda: any(m["alive"] and m["name"] == f"{LENDER}.test" for m in dave.ask("members")), "the lender is seen")
    return dave


@contextmanager
def _altered(lab: Lab, kind: str, file: str, edit: str) -> Iterator[None]:
    """Restart a service of the lender with a file of its configuration edited (sed(1)), and again with the old one."""
    path, role = str(RUN / LENDER / kind / file), f"{LENDER}/{kind}"
    lab.run("internet", ["cp", "-p", path, f"{path}.good"])
    try:
        # Written in place: the file stays its service's own.
        lab.run("internet", ["sh", "-c", 'sed "$1" "$2.good" >"$2"', "sh", edit, path])
        lab.restart(role)
        yield
    finally:
        lab.run("internet", ["mv", f"{path}.good", path])
        lab.restart(role)


def test_a_wrong_component_secret_is_told(lab: Lab, person: Person) -> None:
    begin = len(lab.log(f"{LENDER}/member", 1 << 20))
    with _altered(lab, "member", "secret", "s/^./x/"):
        until(
            lambda: "mesh.component_refused" in lab.log(f"{LENDER}/member", 1 << 20)[begin:],
            "the member says that it is refused",
        )
        assert _readiness(lab).startswith("503")
    order = person.order("--location", f"{LENDER}.test")
    person.delete(order)


def test_a_server_whose_name_does_not_resolve_is_told(lab: Lab, person: Person) -> None:
    """The member runs on, and serves its own users with what needs nobody else."""
    with _altered(lab, "member", "member.toml", 's/^host = .*/host = "xmpp.nowhere.test"/'):
        told = until(
            lambda: now if "xmpp.nowhere.test" in (now := _readiness(lab)) else "",
            "the member says what does not resolve",
        )
        assert told.startswith("503")
        assert "xmpp.nowhere.test" in lab.log(f"{LENDER}/member", 1 << 20)
        local = Person(lab, LENDER, "dave")
        wish = ("--kind", "network", "--cidr", "10.9.0.0/24", "--wait", "--timeout", "60")
        local.delete(local.ask("order", "create", *wish)[0])
    order = person.order("--location", f"{LENDER}.test")
    person.delete(order)


def test_no_tunnel_port_left_is_told_and_leaves_nothing(lab: Lab, person: Person) -> None:
    with _altered(lab, "tunnel", "tunnel.toml", 's/^ports = .*/ports = "20000-20000"/'):
        first = person.order("--location", f"{LENDER}.test")
        second = person.ask("order", "create", "--image", "debian", "--location", f"{LENDER}.test")[0]
        told = until(
            lambda: (now := person.ask("order", "show", second["id"]))["code"] == "tunnel.no_port" and now,
            "the order says that there is no port",
        )
        assert "Every public port of this tunnel server is taken" in told["reason"]
        person.delete(second)
        assert [name for name in machines_at(lab, LENDER) if first["lease_id"] in name]
        assert len([name for name in machines_at(lab, LENDER) if name.endswith("record.json")]) == 1
        person.delete(first)
    assert machines_at(lab, LENDER) == []


def _readiness(lab: Lab) -> str:
    """What the lender's member answers at /readyz: the status of a refusal and its body, or nothing."""
    url = f"http://{lab.plan.site(LENDER).lan}:8080/readyz"
    return lab.run(LENDER, ["python3", "-c", READY, url]).stdout
