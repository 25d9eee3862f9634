"""One experiment over a site of containers and one of a real cloud, which looks like one local testbed.

The same with a hypervisor stands in `test_libvirt.py`, whose lab it uses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.image.guest import build
from deploy.lab.client import Lab
from deploy.lab.person import Person, machines_at, until
from deploy.lab.topology import Plan
from deploy.openstack import programs
from deploy.openstack.layout import Profile
from tests.lab.order_steps import HOME, LENDER
from tests.lab.test_experiments import WAY, experiment, nodes_of, pinged
from tests.support.openstack import MISSING
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]
PATIENCE = 1500.0  # seconds that guests may take to start on a machine that does other things, too
COMMANDED = SEED.replace("$ns rtproto", 'tb-set-node-startcmd $e {echo "$(hostname) is up"}\n$ns rtproto')
WHOLE = 1500 - 28  # octets of a ping that fills a frame (RFC 791, RFC 792)


@pytest.fixture(scope="module")
def lab(namespaces: None) -> Iterator[Lab]:
    """Two sites, of which the second has an OpenStack with real guests and real networks."""
    if missing := programs.missing(Profile.FULL):
        pytest.skip(MISSING.format(missing[0]))
    for image in ("tiny", "portal"):
        build(image)
    with Lab.up(f"cloud-{os.getpid()}", Plan(2, middleware={LENDER: "openstack"})) as running:
        yield running


def test_machines_of_a_cloud_join_containers_in_one_experiment(lab: Lab) -> None:
    person = Person(lab, HOME)
    until(lambda: len([one for one in person.ask("members") if one["alive"]]) == 2, "both are alive", PATIENCE)
    spans_two_kinds(lab, person)


def spans_two_kinds(lab: Lab, person: Person) -> None:
    """Run the seed's experiment, the second testbed of which is lent by a site of virtual machines; nothing of it is left."""
    with experiment(person, COMMANDED, patience=PATIENCE) as shown:
        nodes = nodes_of(shown)
        assert {segment["testbed"]: segment["member"] for segment in shown["segments"]} == {
            "deter": f"{HOME}.test",
            "ucb": f"{LENDER}.test",
        }
        until(lambda: pinged(person, nodes["a"], "e"), "a pings e", PATIENCE)
        way = person.at(nodes["a"], "traceroute -n -w 5 -q 1 -m 5 e").splitlines()[1:]
        assert [line.split()[1] for line in way] == WAY
        until(lambda: pinged(person, nodes["a"], "e", f"-s {WHOLE}"), "whole frames pass", PATIENCE)
        assert person.at(nodes["a"], "nc -w 5 e 22 </dev/null | head -c 7; true") == "SSH-2.0"
        until(lambda: "e is up" in person.at(nodes["e"], "cat /tmp/federate"), "its command has run", PATIENCE)
        booted = _boot_of_e(person)
        person.fed("experiment", "operate", "seed", "reboot", "e")
        until(lambda: _boot_of_e(person) not in ("", booted), "e has started anew", PATIENCE)
        until(lambda: pinged(person, nodes["a"], "e"), "a pings e again", PATIENCE)
    for site in (HOME, LENDER):
        until(lambda site=site: machines_at(lab, site) == [], f"{site} holds nothing", PATIENCE)  # type: ignore[misc]


def _boot_of_e(person: Person) -> str:
    """What is different after each start; empty while it cannot be asked."""
    command = ("run", "--node", "e", "--", "cat", "/proc/sys/kernel/random/boot_id")
    return person.fed_status("experiment", "operate", "seed", *command).stdout
