"""The same contract as an unprivileged person keeps it: in a user namespace with a single uid, where Dropbear lets people in.

The tests of test_containers*.py run once more, in a pytest of their own inside of that namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
SOMEBODY = 54321  # any uid but root's
NAMESPACES = [
    "unshare",
    "--map-root-user",
    "--user",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
]


def as_somebody() -> list[str]:
    """The command prefix that gives up root, if we have it."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]


@pytest.fixture
def folder(base: Path) -> Iterator[Path]:
    """A folder of that person, with a base of their own."""
    with tempfile.TemporaryDirectory(prefix="fedmesh-") as name:
        folder = Path(name)
        copy = shutil.copytree(base, folder / "base", symlinks=True)
        if os.geteuid() == 0:
            folder.chmod(0o755)
            for path in [folder, copy, *copy.rglob("*")]:
                os.chown(path, SOMEBODY, SOMEBODY, follow_symlinks=False)
        yield folder


@pytest.mark.timeout(300)
def test_the_contract_holds_in_a_user_namespace(folder: Path) -> None:
    prefix = [*as_somebody(), *NAMESPACES]
    probe = subprocess.run([*prefix, "ls", str(REPOSITORY)], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no user namespace for an unprivileged person here: {probe.stderr.strip()}")
    tests = sorted(
        str(path) for path in Path(__file__).parent.glob("test_containers*.py") if path.name != Path(__file__).name
    )
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp", "-k", "not step"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = os.environ | {
        "FEDMESH_TEST_BASE": str(folder / "base"),
        "HOME": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [*prefix, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]
