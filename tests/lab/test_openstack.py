"""A site that lends with a real OpenStack: what is ordered elsewhere is there, and nothing is lost, doubled or left behind.

Guests are pretended here (`openstack-small`), so what they open themselves is left to the libvirt tests and the demo.
"""

from __future__ import annotations

import hashlib
import os
import signal
import struct
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
from tests.lab.lent import OTHERS, VICTIMS, LentLife
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
    until(
        lambda: len([member for member in alice.ask("members") if member["alive"]]) == 2,
        "both members are alive",
        PATIENCE,
    )
    return alice


@pytest.fixture(autouse=True)
def nothing_is_left(lab: Lab, person: Person) -> Iterator[None]:
    """Give back all that a test ordered, and see that the cloud holds nothing then."""
    yield
    ids = [each["id"] for each in person.ask("order", "list") if each["state"] != "deleted"]
    if ids:
        person.ask("order", "delete", *ids, "--wait", "--timeout", str(PATIENCE), patience=PATIENCE)
    assert machines_at(lab, LENDER) == []


def order(person: Person, *wish: str) -> dict[str, Any]:
    """Order something, and return when the lender has it there."""
    options = ["--wait", "--timeout", str(PATIENCE)]
    found: dict[str, Any] = person.ask("order", "create", *wish, *options, patience=PATIENCE)[0]
    assert found["member"] == f"{LENDER}.test"
    return found


def machine(person: Person, *wish: str) -> dict[str, Any]:
    """Order a machine that only the lender has."""
    return order(person, "--image", "debian", "-r", LENDER_ONLY, *wish)


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
    network = order(person, "--kind", "network", "--cidr", "10.9.0.0/24", "-r", LENDER_ONLY)
    user = machine(person, "--network", network["id"])
    assert [line.split()[-1] for line in servers(lab)] == ["ACTIVE"]
    volume = order(person, "--kind", "volume", "--size", "1", "-r", LENDER_ONLY)
    order(person, "--kind", "attachment", "--machine", user["id"], "--volume", volume["id"])
    address = order(person, "--kind", "public-ip", "--machine", user["id"], "--allow", "tcp 443")
    assert address["instance"]["public_address"] or address["instance"]["address"]
    held = machines_at(lab, LENDER)
    for kind in ("server", "volume", "network", "floating ip"):
        assert len([each for each in held if each.startswith(kind)]) == 1, held


def test_an_image_from_the_internet(lab: Lab, person: Person) -> None:
    content = _disk()
    with _published(lab, content) as url:
        order(person, "--image-url", url, "--sha256", hashlib.sha256(content).hexdigest(), "-r", LENDER_ONLY)
        assert [line.split()[-1] for line in servers(lab)] == ["ACTIVE"]


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
    lost, kept = machine(person), machine(person, "--type", "persistent")
    site_cloud.at(lab, LENDER, "delete-servers")
    closed = shows(person, lost["id"], "closed")
    assert closed["reason"]
    until(
        lambda: now if (now := shows(person, kept["id"], "fulfilled"))["lease_id"] != kept["lease_id"] else None,
        "there is another machine",
        PATIENCE,
    )
    assert len(servers(lab)) == 1


def test_a_cloud_that_stands_still_in_mid_create_loses_and_doubles_nothing(lab: Lab, person: Person) -> None:
    begun = person.ask("order", "create", "--image", "debian", "-r", LENDER_ONLY)[0]
    shows(person, begun["id"], "pending")
    lab.kill(f"{LENDER}/lender", signal.SIGSTOP)
    time.sleep(STOPPED)
    lab.kill(f"{LENDER}/lender", signal.SIGCONT)
    shows(person, begun["id"], "fulfilled")
    assert [line.split()[-1] for line in servers(lab)] == ["ACTIVE"]


class PretendedLife(LentLife):
    """Guests are pretended, so Nova is asked instead of them."""

    def answers(self, order: dict[str, Any]) -> bool:
        """Whether all machines run."""
        return all(line.endswith(" ACTIVE") for line in servers(self.lab))


@pytest.mark.parametrize(
    "victim", [VICTIMS[0], *(pytest.param(one, marks=pytest.mark.long) for one in [*VICTIMS[1:], *OTHERS])]
)
def test_after_each_crash_the_cloud_holds_what_the_book_says(lab: Lab, person: Person, victim: str) -> None:
    PretendedLife(lab, person, patience=PATIENCE).survives(victim)


def _disk() -> bytes:
    """The least that Glance takes for a raw disk: a boot sector whose table has one partition, and room."""
    partition = struct.pack("<B3xB3xII", 0x80, 0x83, 1, 2047)  # to be booted, Linux, first sector and number of sectors
    return os.urandom(446) + partition + bytes(48) + b"\x55\xaa" + bytes(2047 * 512)


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
