"""A real OpenStack for component tests, started by the test run that wants one.

    def test_x(real_openstack: OpenStack): …        one for the whole run of this process
    account = real_openstack.project(instances=1)   a project of its own, with a user, for each test that counts or deletes

It is the profile `small` (guests and discs are pretended, everything before them is real) on a loopback address that no other process
takes, and it dies with its process, even with one that is killed. FEDMESH_TEST_OPENSTACK="DIR ADDRESS" names one that runs already
(`python -m deploy.openstack up --state DIR …`), which is left running. Where it is not installed its tests are skipped, and say so.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.openstack import operator, programs, running
from deploy.openstack.api import Account, Client
from deploy.openstack.layout import Cloud, Profile

START_TIMEOUT = 400  # seconds
MISSING = "OpenStack is NOT TESTED: there is no {} (install it with: deploy/setup --openstack)"


class OpenStack:
    """A running cloud, and what can be done to it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.auth_url = cloud.auth_url

    @property
    def admin(self) -> Client:
        """Who may do everything."""
        return Client.administrator(self.cloud)

    def project(self, roles: tuple[str, ...] = ("member",), **limits: int) -> Account:
        """Make a project with a user, without quotas but for those that are named (such as `instances=1`)."""
        name = f"test-{secrets.token_hex(4)}"
        account = Account(name, name, secrets.token_hex(8))
        operator.project(self.cloud, account, roles, limits)
        return account

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing of it answers meanwhile, and connections stay open."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def crash(self) -> None:
        """Kill all of it at once."""
        self._signal(signal.SIGKILL)

    def start(self) -> None:
        """Start it again, as it was."""
        running.up(self.cloud, print, leashed=True)

    def _signal(self, number: signal.Signals) -> None:
        pid = running.pid(self.cloud.state)
        assert pid is not None, "it does not run"
        os.killpg(pid, number)


@pytest.fixture(scope="session")
def real_openstack() -> Iterator[OpenStack]:
    """The cloud of this process."""
    if kept := os.environ.get("FEDMESH_TEST_OPENSTACK"):
        yield OpenStack(running.cloud(Path(kept.split()[0])))
        return
    if missing := programs.missing(Profile.SMALL):
        pytest.skip(MISSING.format(missing[0]))
    state = Path(tempfile.mkdtemp(prefix="fedmesh-os-"))
    cloud = Cloud(state, loopback_of(os.getpid()))
    try:
        running.up(cloud, print, leashed=True)
        yield OpenStack(cloud)
    finally:
        if running.pid(state) is not None:
            running.down(state)
        shutil.rmtree(state)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of a cloud waits for its start as well."""
    for item in items:
        if "real_openstack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(START_TIMEOUT))


def loopback_of(pid: int) -> str:
    """A loopback address that belongs to one process as its number does (a pid has at most 22 bits, proc(5))."""
    return f"127.{128 + (pid >> 16)}.{pid >> 8 & 255}.{pid & 255}"
