"""The same contract as an unprivileged person keeps it: in a user namespace.

With a single uid Dropbear lets people in; with a range of uids (as /etc/subuid gives) machines are complete. The tests
of test_containers*.py run once more for each, in a pytest of their own inside of that namespace.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
HERE = Path(__file__)
SOMEBODY = 54321  # any uid but root's
RANGE = f"0 {SOMEBODY} 1\n1 {1 << 29} 65535\n"  # as newuidmap(1) would write it
NAMESPACES = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
NOT_AGAIN = "not step"  # the crash at every step is the same code with the same names; it has run before


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


def again(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command that runs the other tests of this folder, and its environment; it is run under `seen_by_anybody`."""
    checkout = folder / "checkout" if os.geteuid() == 0 else REPOSITORY
    tests = [
        str(path.relative_to(REPOSITORY)) for path in sorted(HERE.parent.glob("test_containers*.py")) if path != HERE
    ]
    python = checkout / Path(sys.executable).relative_to(REPOSITORY)
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp", "-k", NOT_AGAIN]
    more = {"FEDMESH_TEST_BASE": str(folder / "base"), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return [str(python), "-m", "pytest", *options, *tests], os.environ | more | {"PYTHONPATH": str(checkout)}


def seen_by_anybody(folder: Path) -> list[str]:
    """The start of a command line that shows the checkout at `folder`: where it lies, only root may be let in."""
    if os.geteuid() != 0:
        return []
    (folder / "checkout").mkdir()
    show = f"mount --bind {shlex.quote(str(REPOSITORY))} {folder}/checkout && cd {folder}/checkout"
    return ["unshare", "--mount", "sh", "-c", f'{show} && exec "$@"', "sh"]


def passes(command: list[str], environment: dict[str, str]) -> None:
    """Run it, and show what it said."""
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]


@pytest.mark.timeout(300)
def test_the_contract_holds_with_one_id(folder: Path) -> None:
    person = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    prefix = [*person, "unshare", "--user", "--map-root-user", *NAMESPACES]
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no user namespace for an unprivileged person here: {probe.stderr.strip()}")
    command, environment = again(folder)
    passes([*seen_by_anybody(folder), *prefix, *command], environment)


@pytest.mark.timeout(300)
def test_the_contract_holds_with_a_range_of_ids(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give the range; what newuidmap gives is the same")
    command, environment = again(folder)
    with subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE) as holder:
        proc = Path(f"/proc/{holder.pid}")
        while (proc / "ns/user").readlink() == Path("/proc/self/ns/user").readlink():
            assert holder.poll() is None
        for name in ("uid_map", "gid_map"):
            (proc / name).write_text(RANGE)
        enter = ["nsenter", f"--user={proc}/ns/user", "--setuid=0", "--setgid=0", "unshare", *NAMESPACES]
        passes([*seen_by_anybody(folder), *enter, *command], environment)
