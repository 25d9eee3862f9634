"""The seed's experiment with the six services, from its description to what its nodes do.

The links between testbeds are plain wires here; what portals do to frames on them is tests/component/portal's business.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from federation_member.experiments.parting import hosts_of
from fedkit.node.kit.conf import write
from fedkit.services.arrange import Arranged, arrange
from fedkit.services.installed import installed
from fedkit.services.scene import project
from fedkit.topology.formats import read
from fedkit.topology.model import Topology
from fedkit.topology.routes import routes_of
from fedkit.topology.views import hidden_hosts
from tests.support.nodes import Node, until, wired
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not all(map(shutil.which, ("smbd", "smbnetfs", "nsenter"))), reason="samba or smbnetfs is not installed"
    ),
]
SIX = """
# SERVICE: project_export:deter:ucb:project=TIED
# SERVICE: local_seer_control:deter,ucb
# SERVICE: seer_master:deter:ucb
# SERVICE: hide_hosts:ucb::hosts=d
"""
EVENTS = """
set prog [$c program-agent -command "echo happened >>/tmp/happened"]
$ns at 1.0 "$prog start"
$ns at 2.0 "$link1 down"
$ns at 6.0 "$link1 up"
"""
OVER_LINK1 = "ping -c 1 -w 2 10.1.3.2"


@dataclass
class Running:
    """The experiment."""

    arranged: Arranged
    nodes: dict[str, Node]

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]


def conf_of(name: str, whole: Topology, done: Arranged) -> str:
    """A node's client.conf: the whole's names and ways, and what services tell it."""
    testbeds = {computer.name: computer.testbed for computer in done.topology.computers}
    hidden = {one for one in hidden_hosts(whole) if testbeds[one] != testbeds[name]}
    lines = [("Name", name)]
    lines += [
        ("Host", f"{host.ip4} {' '.join(host.names)}")
        for host in hosts_of(done.topology)
        if not any(host.names[0].startswith(one) for one in hidden)
    ]
    routes = routes_of(whole).get(name, ())
    lines += [("Route", f"{hop.destination} {hop.via}") for hop in routes]
    lines += [("Forward", "yes")] if routes else []
    return write([*lines, *done.settings.get(name, ())])


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """All nodes up, each configured by its kit; in the end every one is as it was."""
    text = SEED.replace("$ns rtproto", f"{SIX}{EVENTS}$ns rtproto")
    whole = asyncio.run(read(text.encode(), "seed.ns")).topology
    done = arrange(whole, installed(), secret="s", user="rosa", project_of=lambda name: project(name, {"rosa": []}))
    with wired(done.topology) as nodes:
        for name, each in nodes.items():
            (each.root / "opt/client.conf").write_text(conf_of(name, whole, done))
        before = {name: (each.tree(), each.kernel()) for name, each in nodes.items()}
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda each: each.kit("apply", patience=120), nodes.values()))
            yield Running(done, nodes)
            for each in nodes.values():
                each.sh("rm -f /tmp/happened")
            list(pool.map(lambda each: each.kit("undo"), nodes.values()))
        for name, each in nodes.items():
            assert dict(each.tree().items() ^ before[name][0].items()) == {}
            assert each.kernel() == before[name][1]


def test_a_file_written_at_a_is_read_at_e_under_the_same_account(running: Running) -> None:
    running["a"].by("rosa", "echo from a >/proj/tied/file")
    assert running["e"].by("rosa", "cat /proj/tied/file") == "from a\n"
    running["e"].by("rosa", "echo from e >/proj/tied/back")
    for name in "abcde":
        assert (
            running[name].by("rosa", "cat /proj/tied/back; stat -c %U:%u /proj/tied/back").startswith("from e\nrosa:")
        )
    assert len({running[name].sh("id rosa") for name in "abcde"}) == 1


def test_the_hidden_host_is_known_nowhere_else(running: Running) -> None:
    for name in ("a", "b", "control", "master"):
        assert "10.1.2.3" not in running[name].sh("cat /etc/hosts")
    assert "10.1.2.3 d" in running["e"].sh("cat /etc/hosts")
    assert "d" not in running["master"].asks("nodes")["nodes"]


def test_the_master_lists_the_nodes_of_both_testbeds_and_runs_a_command_on_each(running: Running) -> None:
    told = running["master"].asks("nodes")
    assert {name: one["controller"] for name, one in told["nodes"].items()} == {
        "a": "control",
        "b": "control",
        "c": "control1",
        "e": "control1",
    }
    assert told["unreachable"] == {}
    done = running["master"].asks("run", "hostname")
    assert {name: one["output"] for name, one in done["output"].items()} == {name: f"{name}\n" for name in "abce"}
    local = running["control1"].asks("run", "hostname", "c")
    assert list(local["output"]) == ["c"]


def test_events_happen_on_the_nodes_of_both_testbeds(running: Running) -> None:
    until(lambda: running["c"].sh("cat /tmp/happened", check=False) == "happened\n", "the program has run")

    def told() -> dict[str, str]:
        events = running["master"].asks("events")["events"]
        return {f"{event['node']} {event['target']} {event['action']}": event.get("status", "") for event in events}

    wanted = {"c prog start", *(f"{node} link1 {action}" for node in "bc" for action in ("down", "up"))}
    until(lambda: told() == dict.fromkeys(wanted, "done"), f"{wanted} are done")
    until(lambda: "1 received" in running["b"].sh(OVER_LINK1, check=False), "the link is up again")
    until(lambda: "1 received" in running["a"].sh("ping -c 1 -w 2 e", check=False), "and so are the ways over it")


def test_a_link_that_is_down_does_not_hinder_who_puts_it_up(running: Running) -> None:
    running["master"].asks("event", "c", "link1", "down")
    until(lambda: "1 received" not in running["b"].sh(OVER_LINK1, check=False), "the link is down")
    running["master"].asks("event", "c", "link1", "up")
    until(lambda: "1 received" in running["b"].sh(OVER_LINK1, check=False), "the link is up again")
