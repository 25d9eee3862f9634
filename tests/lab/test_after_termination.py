"""After an experiment over two sites has ended no secret of it stands in any file, and every host is as it was; also after kill -9."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.places import PYTHON, RUN, SOURCES
from tests.lab.order_steps import HOME, LENDER
from tests.lab.remains import Look, Secrets, found_in, looks, secrets_at
from tests.lab.test_experiments import nodes_of, pinged
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
FILE = "/run/fedlab/tmp/secret.ns"
NAME = "secret"
SITES = (HOME, LENDER)
SERVICES = ("project_export:deter:ucb:project=TIED", "local_seer_control:deter,ucb", "seer_master:deter:ucb")
PATIENCE = 240.0
LOOK_AGAIN = 1.0  # seconds
LOGIN, OWN = "a login key", "the researcher's keys"
SEALED = "the login key, sealed"  # by a key that the researcher alone has; answers of a week are remembered
KILL = """
import signal, sys
from pathlib import Path
from federation_member.middleware.containers.nodes.client import handle_of
for folder in Path(sys.argv[1]).iterdir():
    if (handle := handle_of(folder)) is not None:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
"""
KNOWN = {  # where what stands while the experiment runs
    "a portal's key": SITES,
    "a grant's key": SITES,
    "the lender's key for its nodes": SITES,
    SEALED: SITES,
    "a tunnel key": SITES,
    "what services told nodes": SITES,
    "the experiment's key": (HOME,),
}


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A researcher at the first site."""
    return Person(lab, HOME, "tara")


@pytest.fixture(autouse=True)
def everything_runs_again(lab: Lab) -> Iterator[None]:
    """Whatever the test killed and did not start again is started, for the tests that follow."""
    yield
    for role, service in lab.status().items():
        if service["pid"] is None:
            lab.start(role)


def runs(person: Person) -> None:
    """The seed's experiment with services is active, and its portals are joined."""
    person.write(FILE, SEED)
    follow = ("--name", NAME, "--ssh-key", person.public_key, "--follow", "--timeout", str(PATIENCE))
    places = ("--map", f"deter={HOME}.test", "--map", f"ucb={LENDER}.test")
    services = [word for service in SERVICES for word in ("--service", service)]
    person.fed("experiment", "create", FILE, *places, *services, *follow, patience=PATIENCE)
    nodes = nodes_of(person.ask("experiment", "show", NAME))
    until(lambda: pinged(person, nodes["a"], "e"), "a pings e", PATIENCE)


def collected(lab: Lab, person: Person) -> Secrets:
    """All that was made for it. The researcher's own copies are theirs: they are put away."""
    logins, own = "/run/fedlab/tmp/secret.ssh", f"{RUN}/people/{HOME}-{person.name}/.config/fedmesh/experiments"
    person.fed("experiment", "credentials", NAME, "--into", logins)
    copies = [
        (what, lab.run(HOME, ["sh", "-c", f"cat {place}/* && rm -r {place}"]).stdout)
        for what, place in ((LOGIN, logins), (OWN, own))
    ]
    assert [text.count("BEGIN") for _, text in copies] == [len(SITES), 2]
    return [*copies, *(secret for site in SITES for secret in secrets_at(lab, site))]


def kill_segments(lab: Lab, site: str) -> None:
    """Kill the programs that hold a site's nodes and portals."""
    folders = RUN / site / "member/machines/instances"
    lab.run(site, ["env", f"PYTHONPATH={SOURCES}", str(PYTHON), "-c", KILL, str(folders)])


def nothing_is_left(lab: Lab, secrets: Secrets, before: dict[str, Look]) -> None:
    """No secret in any file, and every host as it was."""
    for site in SITES:
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]
    plain = [(what, text) for what, text in secrets if not what.startswith(SEALED)]
    becomes({}, lambda: found_in(lab, plain))
    becomes([], lambda: difference(before, looks(lab, *SITES)))


def becomes(wanted: object, look: Callable[[], object]) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + PATIENCE
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN)
    assert found == wanted


def difference(before: dict[str, Look], after: dict[str, Look]) -> list[str]:
    """Lines that came or went."""
    return [
        f"{host}, {what}: {line}"
        for host, look in before.items()
        for what, lines in look.items()
        for line in set(lines) ^ set(after[host][what])
    ]


def has_ended(person: Person) -> Callable[[], bool]:
    """Whether it is over, while its member may just be starting."""
    return lambda: '"terminated"' in person.fed_status("experiment", "show", NAME, "-o", "json").stdout


def test_no_secret_of_it_is_on_any_disk_and_every_host_is_as_it_was(lab: Lab, person: Person) -> None:
    before = looks(lab, *SITES)
    runs(person)
    secrets = collected(lab, person)
    there = found_in(lab, secrets)
    for what, sites in KNOWN.items():
        for site in sites:
            assert any("member.db" in file for file in there[f"{what} at {site}"])
    assert LOGIN not in there
    person.fed("experiment", "terminate", NAME, "--follow", patience=PATIENCE)
    nothing_is_left(lab, secrets, before)


def test_nor_after_everybody_was_killed_while_it_ended(lab: Lab, person: Person) -> None:
    before = looks(lab, *SITES)
    runs(person)
    secrets = collected(lab, person)
    person.fed("experiment", "terminate", NAME)
    victims = [f"{HOME}/member", f"{LENDER}/member", f"{LENDER}/tunnel"]
    for victim in victims:
        lab.kill(victim)
    for site in SITES:
        kill_segments(lab, site)
    for victim in victims:
        lab.start(victim)
    until(has_ended(person), "it has ended", PATIENCE)
    nothing_is_left(lab, secrets, before)
