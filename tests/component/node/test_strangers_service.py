"""docs/federation-kit.md shows a complete service: exactly that text is built as a package, found by its entry point, and run on a node."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fedkit.node.kit.conf import write
from fedkit.services.arrange import arrange
from fedkit.services.installed import installed
from fedkit.services.scene import project
from fedkit.topology.formats import read
from fedkit.topology.services import parse_service
from tests.support import strangers
from tests.support.nodes import node
from tests.unit.topology.test_sub_experiment import SEED

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="no namespaces"),
]


async def test_a_service_is_one_file(tmp_path: Path) -> None:
    topology = (await read(SEED.encode(), "seed.ns")).topology
    topology = replace(topology, services=(parse_service("greeting:deter:ucb:text=welcome"),))
    with strangers.installed("docs/federation-kit.md", "A service of your own", "greeting", tmp_path):
        done = arrange(topology, installed(), secret="s", user="rosa", project_of=lambda name: project(name, {}))
    assert sorted(done.settings) == ["c", "d", "e"]
    with node() as machine:
        before = machine.tree(), machine.kernel()
        (machine.root / "opt/client.conf").write_text(conf := write(done.settings["e"]))
        machine.kit("apply", conf=conf)
        assert machine.sh("cat /etc/motd") == "deter greets e: welcome\n"
        assert machine.sh("pidof sleep")
        machine.kit("undo")
        (machine.root / "opt/client.conf").write_text("")
        assert (machine.tree(), machine.kernel()) == before
