"""A site that lends QEMU guests: ordered at one site, booted at the other, entered from the internet."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.image.guest import build
from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.topology import Plan
from tests.lab.lent import OTHERS, VICTIMS, LentLife
from tests.lab.test_mixed_experiments import spans_two_kinds
from tests.support.checkout import REPOSITORY

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
BOOT = 1500.0  # seconds that a guest may take to start on a machine that does other things, too
LENDER = "site-b"

USER_DATA = """\
#cloud-config
users:
- default
- {name: carol, shell: /bin/bash}
write_files:
- {path: /opt/said, content: "hello\\n"}
runcmd:
- id -un > /opt/ran
"""
SEEN = "cat /opt/said /opt/ran 2>/dev/null || true"
OURS = "hostname; id -un carol; systemctl is-enabled fed-tunnel; ls /etc/ssh/ssh_host_*_key"


@pytest.fixture(scope="module")
def images(namespaces: None, request: pytest.FixtureRequest) -> None:
    """What guests boot from; built if it is not there."""
    pytest.importorskip("libvirt", reason="libvirt-python is not installed; run deploy/setup --libvirt")
    if os.geteuid() != 0 or not shutil.which("libvirtd"):
        pytest.skip("needs root and libvirtd; run deploy/setup --libvirt")
    for image in ("tiny", "portal", *(["debian"] if request.config.getoption("--long") else [])):
        build(image)


@pytest.fixture(scope="module")
def lab(images: None) -> Iterator[Lab]:
    """Two sites, of which the second lends guests."""
    with Lab.up(f"libvirt-{os.getpid()}", Plan(2, middleware={LENDER: "libvirt"})) as running:
        yield running


@pytest.fixture(scope="module")
def person(lab: Lab) -> Person:
    """A user at the first site who sees the lender."""
    alice = Person(lab, "site-a")
    until(lambda: len([member for member in alice.ask("members") if member["alive"]]) == 2, "both members are alive")
    return alice


def test_a_guest_boots_elsewhere_opens_its_tunnel_and_lets_its_user_in(lab: Lab, person: Person) -> None:
    order = person.order("--image", "tiny", "--location", f"{LENDER}.test", patience=BOOT)
    try:
        assert order["member"] == f"{LENDER}.test"
        assert "Linux" in person.ssh(order, "uname -a")
        assert person.ssh(order, "hostname").strip() == order["instance"]["name"]
        assert "fvm" in "".join(machines_at(lab, LENDER))
    finally:
        person.delete(order)
    assert machines_at(lab, LENDER) == []


@pytest.mark.long
def test_the_real_cloud_init_opens_the_tunnel_and_does_what_the_user_says(lab: Lab, person: Person) -> None:
    lab.run("site-a", ["tee", "/run/fedlab/tmp/user-data"], text=USER_DATA)
    wish = ["--image", "debian", "--flavour", "medium", "--user-data", "/run/fedlab/tmp/user-data"]
    order = person.order(*wish, "--location", f"{LENDER}.test", patience=BOOT)
    try:
        assert "Debian" in person.ssh(order, "cat /etc/issue")
        until(lambda: person.ssh(order, SEEN).split() == ["hello", "root"], "the user's part has run", BOOT)
        ours = [order["instance"]["name"], "carol", "enabled", "/etc/ssh/ssh_host_ed25519_key"]
        assert person.ssh(order, OURS).split() == ours
    finally:
        person.delete(order)
    assert machines_at(lab, LENDER) == []


def test_a_guest_survives_its_hypervisors_daemon_and_its_member(lab: Lab, person: Person) -> None:
    order = person.order("--image", "tiny", "--location", f"{LENDER}.test", patience=BOOT)
    try:
        booted = person.ssh(order, "cat /proc/sys/kernel/random/boot_id")
        for role in ("lender", "member"):
            lab.kill(f"{LENDER}/{role}", signal.SIGKILL)
            assert person.ssh(order, "cat /proc/sys/kernel/random/boot_id") == booted
            lab.start(f"{LENDER}/{role}")
        until(lambda: person.ask("order", "show", order["id"])["state"] == "fulfilled", "the order is fulfilled")
        assert person.ssh(order, "cat /proc/sys/kernel/random/boot_id") == booted
    finally:
        person.delete(order)
    assert machines_at(lab, LENDER) == []


def test_guests_join_containers_in_one_experiment(lab: Lab, person: Person) -> None:
    spans_two_kinds(lab, person)


@pytest.mark.parametrize("victim", [*VICTIMS, *(pytest.param(one, marks=pytest.mark.long) for one in OTHERS)])
def test_after_each_crash_the_hypervisor_holds_what_the_book_says(lab: Lab, person: Person, victim: str) -> None:
    LentLife(lab, person, image="tiny", patience=BOOT).survives(victim)
    assert machines_at(lab, LENDER) == []


@pytest.mark.usefixtures("images")
def test_the_demo_tells_the_whole_story() -> None:
    command = [sys.executable, "-m", "deploy.story", "--once", "--middleware", "libvirt", "-o", "json"]
    environment = {**os.environ, "FED_DEMO": f"libvirt-demo-{os.getpid()}"}
    told = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    story = json.loads(told.stdout)
    assert story["ok"] is True
    assert [step["name"] for step in story["steps"]][-1] == "the sites are down"
