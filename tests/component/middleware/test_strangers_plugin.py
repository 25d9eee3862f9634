"""docs/middleware.md shows a complete middleware: exactly that text is built as a package, found by its entry point, and run."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

import pytest

from federation_member.middleware.contract import Account, Middleware
from federation_member.plugins import load_middleware
from fedkit.protocol.lending import Flavour
from tests.component.middleware.contract import MiddlewareContract
from tests.component.middleware.machines import MachineContract
from tests.component.middleware.place import ACCOUNT, network_namespace
from tests.support.checkout import REPOSITORY

TEXT = (REPOSITORY / "docs/middleware.md").read_text()


def shown(file: str) -> str:
    """The file of that name, as the document shows it."""
    found = re.search(rf"^`{re.escape(file)}`:\n\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/middleware.md shows no {file}"
    return found[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the stranger's package is installed in."""
    source, target = tmp_path_factory.mktemp("sandboxes"), tmp_path_factory.mktemp("installed")
    for file in ("sandboxes.py", "pyproject.toml"):
        (source / file).write_text(shown(file))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--no-build-isolation", "--target", target, source], check=True, timeout=120)
    sys.path.insert(0, str(target))
    os.environ["PYTHONPATH"] = str(target)  # for the process that is killed
    invalidate_caches()
    yield target
    sys.path.remove(str(target))
    del os.environ["PYTHONPATH"]


@dataclass
class SandboxesSite:
    """A folder and a bridge."""

    state: Path
    base: Path
    kind: str = "sandboxes:Sandboxes"
    flavour: Flavour = Flavour(name="small", vcpu=1, ram_mb=128, disk_gb=1)  # noqa: RUF009  it is frozen
    image: str = "debian"
    account: Account = ACCOUNT
    crowd: int = 3
    stride: int = 61
    moments: tuple[float, ...] = (0.05, 0.15)

    @property
    def options(self) -> dict[str, Any]:
        """As in the document."""
        images = {self.image: str(self.base)}
        return {"state": str(self.state), "images": images, "bridge": "br0", "gateway": "10.77.0.1/24"}

    def middleware(self) -> Middleware:
        """Found as a member finds it."""
        return load_middleware("sandboxes", self.options)

    def clear(self) -> None:
        """End what a failed test left."""
        for key in [path.name for path in self.state.glob("*")]:
            asyncio.run(self.kill(key))

    async def kill(self, key: str) -> None:
        """End the machine."""
        processes = import_module("sandboxes").Sandboxes.processes(self.middleware(), key)
        for process in processes:
            os.kill(int(process), signal.SIGKILL)

    async def leftovers(self) -> list[str]:
        """Folders, and processes that name one."""
        return await asyncio.to_thread(_leftovers, self.state)


def _leftovers(state: Path) -> list[str]:
    found = [str(path) for path in state.glob("*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if str(state).encode() in path.read_bytes() else []
        except OSError:
            continue
    return found


@pytest.fixture
def site(installed: Path, base: Path, tmp_path: Path) -> Iterator[SandboxesSite]:
    """A site of its own."""
    if os.geteuid() != 0:
        pytest.skip("the example needs root")
    with network_namespace():
        site = SandboxesSite(tmp_path / "state", base)
        yield site
        site.clear()


class TestSandboxes(MiddlewareContract, MachineContract):
    """The whole contract."""


def test_it_is_about_a_hundred_lines() -> None:
    code = [line for line in shown("sandboxes.py").splitlines() if line.strip()]
    assert len(code) < 140
