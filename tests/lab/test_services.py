"""The seed's experiment with the six services, ordered as a researcher does, over two sites behind their firewalls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.lab.client import Lab
from deploy.lab.errors import LabFailed
from deploy.lab.person import Person, until
from tests.component.node.test_services import SIX
from tests.lab.order_steps import HOME, LENDER
from tests.lab.test_experiments import PATIENCE, experiment, nodes_of
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]
IMAGE = "testbed"
STARTED = "/tmp/started"
START = f"grep -c ' /proj/tied fuse ' /proc/mounts >{STARTED}; ls -d /proj/tied/. >>{STARTED}"
ASK = "/usr/bin/python3 /usr/local/federation/kit.pyz ask"
SERVED = "\nthis node is as it shall be\n"


@dataclass(frozen=True)
class Seed:
    """The experiment, and who ordered it."""

    nora: Person
    id: str
    nodes: dict[str, dict[str, Any]]

    def at(self, node: str, command: str) -> str:
        """Run a command on a node as root."""
        return self.nora.at(self.nodes[node], command)

    def by_nora(self, node: str, command: str) -> str:
        """The same under the account of whom the experiment is, who enters with a key of hers."""
        return self.nora.at(self.nodes[node], command, "nora")

    def asks(self, words: str) -> Any:
        """What the control network answers at the master, asked through the member."""
        command = ("run", "--node", "master", "-o", "json", "--", f"{ASK} {words}")
        return json.loads(json.loads(self.operate(*command))["output"]["master"])

    def operate(self, *words: str) -> str:
        """`fed experiment operate`."""
        return self.nora.fed("experiment", "operate", self.id, *words)

    def is_served(self, node: str) -> bool:
        """Whether its kit has done all that it is to do."""
        return SERVED in self.at(node, "cat /tmp/federate")


@pytest.fixture(scope="module")
def seed(lab: Lab) -> Iterator[Seed]:
    """It is active, and every node is as it shall be."""
    nora = Person(lab, HOME, "nora")
    offered = {(image["member"], image["name"]) for image in nora.ask("images")}
    if not offered >= {(f"{site}.test", IMAGE) for site in (HOME, LENDER)}:
        pytest.skip(f"there is no image {IMAGE}: run `deploy/setup --dev`")
    text = SEED.replace('"FC6-STD"', f'"{IMAGE}"').replace('"FC6-SMB"', f'"{IMAGE}"')
    text = text.replace("$ns rtproto", f'tb-set-node-startcmd $e "{START}"\n{SIX}$ns rtproto')
    with experiment(nora, text) as shown:
        found = Seed(nora, shown["id"], nodes_of(shown))
        for name in found.nodes:
            until(lambda name=name: found.is_served(name), f"{name} is served", PATIENCE)  # type: ignore[misc]
        yield found


def test_a_file_written_at_a_is_read_at_e_under_the_same_account(seed: Seed) -> None:
    seed.by_nora("a", "echo from a >/proj/tied/file")
    assert seed.by_nora("e", "cat /proj/tied/file; stat -c %U /proj/tied/file") == "from a\nnora\n"
    seed.by_nora("e", "echo from e >/proj/tied/back")
    for name in "abcde":
        assert seed.by_nora(name, "cat /proj/tied/back") == "from e\n"
    assert len({seed.by_nora(name, "id") for name in "abcde"}) == 1


def test_the_start_command_finds_the_share(seed: Seed) -> None:
    assert seed.at("e", f"cat {STARTED}") == "1\n/proj/tied/.\n"


def test_the_hidden_host_is_known_nowhere_else(seed: Seed) -> None:
    for name in ("a", "b", "control", "master"):
        hosts = seed.at(name, "cat /etc/hosts")
        assert "10.1.2.4" in hosts
        assert "10.1.2.3" not in hosts
    assert "10.1.2.3 d" in seed.at("e", "cat /etc/hosts")


def test_the_master_lists_the_nodes_of_both_testbeds_and_runs_a_command_on_each(seed: Seed) -> None:
    told = seed.asks("nodes")
    assert {name: one["controller"] for name, one in told["nodes"].items()} == {
        "a": "control",
        "b": "control",
        "c": "control1",
        "e": "control1",
    }
    done = seed.asks("run hostname")
    assert {name: one["output"] for name, one in done["output"].items()} == {name: f"{name}\n" for name in "abce"}


def test_the_share_comes_back_when_its_server_and_a_client_were_rebooted(seed: Seed) -> None:
    seed.by_nora("a", "echo kept >/proj/tied/kept")
    seed.operate("reboot", "a", "e")

    def is_read(name: str) -> bool:
        try:
            return seed.by_nora(name, "cat /proj/tied/kept; true") == "kept\n"
        except LabFailed:  # its ssh server comes up with it
            return False

    for name in "abcde":
        until(lambda name=name: is_read(name), f"{name} reads it again", PATIENCE)  # type: ignore[misc]
    for name in "ae":
        until(lambda name=name: seed.is_served(name), f"{name} is served again", PATIENCE)  # type: ignore[misc]
    assert seed.at("e", f"cat {STARTED}") == "1\n/proj/tied/.\n"
