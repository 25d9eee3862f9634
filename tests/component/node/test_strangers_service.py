"""docs/federation-kit.md shows a complete service: exactly that text is built as a package, found by its entry point, and run on a node."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import invalidate_caches
from pathlib import Path

import pytest

from fedkit.node.kit.conf import write
from fedkit.services.arrange import arrange
from fedkit.services.installed import installed
from fedkit.services.scene import project
from fedkit.topology.formats import read
from fedkit.topology.services import parse_service
from tests.support.checkout import REPOSITORY
from tests.support.nodes import node
from tests.unit.topology.test_sub_experiment import SEED

TEXT = (REPOSITORY / "docs/federation-kit.md").read_text()
pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("nsenter") is None, reason="no namespaces"),
]


def shown(file: str) -> str:
    """The file of that name, as the document shows it."""
    found = re.search(rf"^`{re.escape(file)}`:\n\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/federation-kit.md shows no {file}"
    return found[1]


@pytest.fixture
def _greeting(tmp_path: Path) -> Iterator[None]:
    """The stranger's package, installed."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for file in ("greeting.py", "pyproject.toml"):
        (source / file).write_text(shown(file))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", "--target", target, source], check=True, timeout=200)
    sys.path.insert(0, str(target))
    invalidate_caches()
    yield
    sys.path.remove(str(target))
    sys.modules.pop("greeting", None)


@pytest.mark.usefixtures("_greeting")
async def test_a_service_is_one_file(tmp_path: Path) -> None:
    topology = (await read(SEED.encode(), "seed.ns")).topology
    topology = replace(topology, services=(parse_service("greeting:deter:ucb:text=welcome"),))
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
