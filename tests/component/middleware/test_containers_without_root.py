"""The same contract as an unprivileged person keeps it: in a user namespace.

With a single uid Dropbear lets people in; with a range of uids (as /etc/subuid gives) machines are complete. The tests
of test_containers*.py run once more for each, in a pytest of their own inside of that namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import REPOSITORY, Checkout

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


def again(folder: Path, checkout: Checkout) -> tuple[list[str], dict[str, str]]:
    """The command that runs the other tests of this folder, and its environment."""
    tests = [
        str(path.relative_to(REPOSITORY)) for path in sorted(HERE.parent.glob("test_containers*.py")) if path != HERE
    ]
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--basetemp={folder}/tmp", "-k", NOT_AGAIN]
    more = {"FEDMESH_TEST_BASE": str(folder / "base"), "HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    more["PYTHONPATH"] = str(checkout.root)
    return [checkout.python, "-m", "pytest", *options, *tests], os.environ | more


def passes(command: list[str], environment: dict[str, str]) -> None:
    """Run it, and show what it said."""
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    print(done.stdout[-20_000:])
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-2_000:]


@pytest.mark.timeout(300)
def test_the_contract_holds_with_one_id(folder: Path, open_checkout: Checkout) -> None:
    person = ["setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"] if os.geteuid() == 0 else []
    prefix = [*person, "unshare", "--user", "--map-root-user", *NAMESPACES]
    probe = subprocess.run([*prefix, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no user namespace for an unprivileged person here: {probe.stderr.strip()}")
    command, environment = again(folder, open_checkout)
    passes([*open_checkout.prefix, *prefix, *command], environment)


@pytest.mark.timeout(300)
def test_the_contract_holds_with_a_range_of_ids(folder: Path, open_checkout: Checkout) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give the range; what newuidmap gives is the same")
    command, environment = again(folder, open_checkout)
    with subprocess.Popen(["unshare", "--user", "cat"], stdin=subprocess.PIPE) as holder:
        proc = Path(f"/proc/{holder.pid}")
        while (proc / "ns/user").readlink() == Path("/proc/self/ns/user").readlink():
            assert holder.poll() is None
        for name in ("uid_map", "gid_map"):
            (proc / name).write_text(RANGE)
        enter = ["nsenter", f"--user={proc}/ns/user", "--setuid=0", "--setgid=0", "unshare", *NAMESPACES]
        passes([*open_checkout.prefix, *enter, *command], environment)
