"""A site that lends with a real OpenStack: what is ordered elsewhere is there, and nothing is lost, doubled or left behind.

Guests are pretended here (`openstack-small`), so what they open themselves is left to the libvirt tests and the demo.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.topology import DNS_ADDRESS, INTERNET, Plan
from deploy.openstack import programs
from deploy.openstack.layout import Profile
from tests.lab import site_cloud
from tests.support.openstack import MISSING

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]
LENDER = "site-b"
LENDER_ONLY = "attributes.gpu == true"
PATIENCE = 300.0  # seconds that something may take on a machine that does other things, too
STOPPED = 45.0  # seconds; longer than a member waits for any answer


@pytest.fixture(scope="module")
def lab(namespaces: None) -> Iterator[Lab]:
    """Two sites, of which the second has an OpenStack."""
    if missing := programs.missing(Profile.SMALL):
        pytest.skip(MISSING.format(missing[0]))
    with Lab.up(f"openstack-{os.getpid()}", Plan(2, middleware={LENDER: "openstack-small"})) as running:
        yield running


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A user at the first site who sees the lender."""
    alice = Person(lab, "site-a")
    until(lambda: len([member for member in alice.ask("members") if member["alive"]]) == 2, "both members are alive")
    return alice


def order(person: Person, *wish: str) -> dict[str, Any]:
    """Order something that only the lender has, and return when it is there."""
    options = ["-r", LENDER_ONLY, "--wait", "--timeout", str(PATIENCE)]
    found: dict[str, Any] = person.ask("order", "create", *wish, *options, patience=PATIENCE)[0]
    assert found["member"] == f"{LENDER}.test"
    return found


def give_back(lab: Lab, person: Person, *orders: dict[str, Any]) -> None:
    """Delete orders, and see that the cloud holds nothing then."""
    ids = [each["id"] for each in orders]
    person.ask("order", "delete", *ids, "--wait", "--timeout", str(PATIENCE), patience=PATIENCE)
    assert machines_at(lab, LENDER) == []


def shows(person: Person, order_id: str, state: str) -> dict[str, Any]:
    """The order, once it is in a state."""

    def find() -> dict[str, Any] | None:
        found: dict[str, Any] = person.ask("order", "show", order_id)
        return found if found["state"] == state else None

    return until(find, f"the order is {state}", PATIENCE)


def servers(lab: Lab) -> list[str]:
    """What Nova has for the federation: name and status."""
    return site_cloud.at(lab, LENDER, "status")


def test_a_machine_with_all_that_belongs_to_it(lab: Lab, person: Person) -> None:
    network = order(person, "--kind", "network", "--cidr", "10.9.0.0/24")
    machine = order(person, "--image", "debian", "--network", network["id"])
    assert [line.split()[-1] for line in servers(lab)] == ["ACTIVE"]
    volume = order(person, "--kind", "volume", "--size", "1")
    attachment = order(person, "--kind", "attachment", "--machine", machine["id"], "--volume", volume["id"])
    address = order(person, "--kind", "public-ip", "--machine", machine["id"], "--allow", "tcp 443")
    held = machines_at(lab, LENDER)
    for kind in ("server", "volume", "network", "floating ip"):
        assert len([each for each in held if each.startswith(kind)]) == 1, held
    give_back(lab, person, address, attachment, volume, machine, network)


def test_an_image_from_the_internet(lab: Lab, person: Person) -> None:
    content = os.urandom(510) + b"\x55\xaa" + bytes(1 << 20)  # a boot sector: what makes it a disk
    with _published(lab, content) as url:
        machine = order(person, "--image-url", url, "--sha256", hashlib.sha256(content).hexdigest())
        assert [line.split()[-1] for line in servers(lab)] == ["ACTIVE"]
    person.ask("order", "delete", machine["id"], "--wait", "--timeout", str(PATIENCE), patience=PATIENCE)
    assert servers(lab) == []


def test_what_is_over_the_quota_goes_to_the_next_candidate(lab: Lab, person: Person) -> None:
    local = Person(lab, LENDER, "bob")
    site_cloud.at(lab, LENDER, "quota", "instances=0")
    try:
        found = local.order(patience=PATIENCE)
        assert found["member"] == "site-a.test"
        told = local.ask("order", "why", found["id"])
        assert any("quota" in str(attempt).lower() for attempt in told["attempts"]), told
        local.delete(found)
    finally:
        site_cloud.at(lab, LENDER, "quota")


def test_a_machine_that_vanishes_is_told_and_a_persistent_one_is_replaced(lab: Lab, person: Person) -> None:
    lost = order(person, "--image", "debian")
    kept = order(person, "--image", "debian", "--type", "persistent")
    site_cloud.at(lab, LENDER, "delete-servers")
    closed = shows(person, lost["id"], "closed")
    assert closed["reason"]
    replaced = until(
        lambda: now if (now := shows(person, kept["id"], "fulfilled"))["lease_id"] != kept["lease_id"] else None,
        "there is another machine",
        PATIENCE,
    )
    assert len(servers(lab)) == 1
    give_back(lab, person, closed, replaced)


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "killed"])
def test_a_cloud_that_stands_still_in_mid_create_loses_and_doubles_nothing(
    lab: Lab, person: Person, crash: bool
) -> None:
    begun = person.ask("order", "create", "--image", "debian", "-r", LENDER_ONLY)[0]
    shows(person, begun["id"], "pending")
    if crash:
        lab.kill(f"{LENDER}/lender", signal.SIGKILL)
        lab.start(f"{LENDER}/lender")
    else:
        lab.kill(f"{LENDER}/lender", signal.SIGSTOP)
        time.sleep(STOPPED)
        lab.kill(f"{LENDER}/lender", signal.SIGCONT)
    found = shows(person, begun["id"], "fulfilled")
    assert [line.split()[-1] for line in servers(lab)] == ["ACTIVE"]
    give_back(lab, person, found)


@contextmanager
def _published(lab: Lab, content: bytes) -> Iterator[str]:
    """Serve a file on the lab's internet."""
    script = (
        "import http.server, os, sys\n"
        "os.makedirs('/run/fedlab/www', exist_ok=True); os.chdir('/run/fedlab/www')\n"
        "open('disk.raw', 'wb').write(bytes.fromhex(sys.stdin.readline()))\n"
        "server = http.server.ThreadingHTTPServer((sys.argv[1], 80), http.server.SimpleHTTPRequestHandler)\n"
        "print('ready', flush=True); server.serve_forever()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with lab.popen(INTERNET, ["python3", "-c", script, DNS_ADDRESS], **pipes) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            server.stdin.write(content.hex() + "\n")
            server.stdin.flush()
            assert server.stdout.readline() == "ready\n"
            yield f"http://{DNS_ADDRESS}/disk.raw"
        finally:
            server.kill()
