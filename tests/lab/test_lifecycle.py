"""A lab comes up, is found, goes down, and leaves nothing; also when whoever built it, or keeps it, is killed with -9."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deploy.lab import cgroups
from deploy.lab.client import Lab
from deploy.lab.errors import AlreadyUp, LabFailed, NotUp
from deploy.lab.topology import Plan
from deploy.lab.traces import Traces
from fedkit.errors import RemoteError
from tests.lab.components import component, member, ping
from tests.support.checkout import REPOSITORY, Checkout

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("namespaces")]
NOBODY = 65534
DROP = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
SMALL = Plan(2, ("xmpp",))
BUILDER = """
import sys, time
from deploy.lab.client import Lab
from deploy.lab.topology import Plan
lab = Lab.up(sys.argv[1], Plan(2, ("xmpp",)), lambda what, seconds: print(what, flush=True))
print(lab.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a lab; whatever a failed test leaves under it is removed."""
    chosen = f"life-{os.getpid()}"
    yield chosen
    with contextlib.suppress(NotUp):
        Lab.attach(chosen).down()


def _assert_gone(traces: Traces, name: str) -> None:
    """All processes end, the janitor does its work, and then nothing is left."""
    try:
        for _ in range(400):
            if not cgroups.groups(name):
                break
            select.select([], [], [], 0.05)
        assert traces.left() == []
    finally:
        traces.close()
    with pytest.raises(NotUp):
        Lab.attach(name)


@contextlib.contextmanager
def _build(name: str, prefix: Sequence[str] = (), python: str = sys.executable) -> Iterator[subprocess.Popen[str]]:
    command = [*prefix, python, "-c", BUILDER, name]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as builder:
        try:
            yield builder
        finally:
            builder.kill()


def _read_pid(builder: subprocess.Popen[str]) -> int:
    assert builder.stdout is not None
    for line in builder.stdout:
        if line.strip().isdigit():
            return int(line)
    pytest.fail("the lab did not come up")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_down_leaves_nothing(name: str) -> None:
    lab = Lab.up(name, SMALL, leashed=False)
    assert all(service["ready"] for service in lab.status().values())
    traces = Traces(name, lab.pid)
    assert len(traces.processes) >= 4  # pid 1, DNS, two servers
    Lab.attach(name).down()
    assert traces.left() == []
    traces.close()


@pytest.mark.parametrize("victim", ["builder", "unshare", "pid 1"])
def test_kill_9_leaves_nothing(name: str, victim: str) -> None:
    with _build(name) as builder:
        pid = _read_pid(builder)
        traces = Traces(name, pid)
        victims = {"builder": builder.pid, "unshare": _parent(pid), "pid 1": pid}
        os.kill(victims[victim], signal.SIGKILL)
        _assert_gone(traces, name)


def test_kill_9_of_the_builder_while_it_builds_leaves_nothing(name: str) -> None:
    with _build(name) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "network\n"
        builder.kill()
    descriptors = []
    with contextlib.suppress(NotUp, ProcessLookupError, FileNotFoundError):
        descriptors.append(os.pidfd_open(Lab.attach(name).pid))
    assert all(select.select([descriptor], [], [], 20)[0] for descriptor in descriptors)
    with pytest.raises(NotUp):
        Lab.attach(name)


def test_a_second_lab_of_the_same_name_is_refused_and_the_first_lives_on(name: str) -> None:
    with Lab.up(name, Plan(1, ())) as lab:
        with pytest.raises(AlreadyUp):
            Lab.up(name, Plan(1, ()))
        assert lab.status()["dns"]["ready"]


def test_two_labs_stand_side_by_side(name: str) -> None:
    with Lab.up(name, Plan(1, ())) as one, Lab.up(f"{name}-2", Plan(1, ())) as other:
        one.run("site-a/dmz", ["ip", "link", "add", "mark", "type", "bridge"])
        assert other.run("site-a/dmz", ["ip", "link", "show", "mark"], check=False).returncode


def test_what_cannot_be_done_is_said(name: str) -> None:
    with Lab.up(name, SMALL) as lab:
        for request, argument, told in (
            (lab.start, "site-a/xmpp", "runs already"),
            (lab.stop, "site-z/xmpp", "No role 'site-z/xmpp'"),
            (lab.partition, "site-z", "there is site-a, site-b"),
        ):
            with pytest.raises(RemoteError, match=told) as refused:
                request(argument)
            assert refused.value.code == "lab.unknown"
        with pytest.raises(LabFailed, match="status 3"):
            lab.run("site-a", ["sh", "-c", "exit 3"])


def test_a_service_that_cannot_start_is_reported_with_its_log(name: str) -> None:
    with Lab.up(name, SMALL) as lab:
        lab.stop("site-a/xmpp")
        lab.run("internet", ["sh", "-c", "echo broken > /run/fedlab/site-a/xmpp/prosody.cfg.lua"])
        with pytest.raises(RemoteError, match=r"prosody\.cfg\.lua") as failed:
            lab.start("site-a/xmpp")
        assert failed.value.code == "lab.failed"
        assert lab.status()["site-b/xmpp"]["ready"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_without_root(name: str, open_checkout: Checkout) -> None:
    with _build(name, [*open_checkout.prefix, *DROP], open_checkout.python) as builder:
        pid = _read_pid(builder)
        traces = Traces(name, pid)
        assert {os.stat(f"/proc/{each}").st_uid for each in traces.processes} == {NOBODY}
        os.kill(_parent(pid), signal.SIGKILL)
        _assert_gone(traces, name)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_servers_work_without_root(open_checkout: Checkout) -> None:
    command = [*open_checkout.prefix, *DROP, open_checkout.python, "-m", "tests.lab.test_lifecycle"]
    told = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)
    assert told.returncode == 0, told.stderr


def _ping_across() -> None:
    """Run by `test_servers_work_without_root` as an unprivileged user."""
    with Lab.up(f"unprivileged-{os.getpid()}", SMALL) as lab, component(lab, "site-b"):
        assert ping(lab, "site-a", member(lab, "site-b"))[0]["ok"]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot(2) is root's")
def test_in_a_chroot_it_is_said_at_once_that_the_kernel_allows_no_machines(name: str, tmp_path: Path) -> None:
    """Though every sysctl allows them. A member there says the same of each machine."""
    up = f"Lab.up({name!r}, Plan(1))"
    script = f"from deploy.lab.client import Lab; from deploy.lab.topology import Plan; {up}"
    enter = 'mount --rbind / "$1" && exec chroot "$1" sh -c \'cd "$1" && exec "$2" -c "$3"\' sh "$2" "$3" "$4"'
    command = ["unshare", "--mount", "sh", "-c", enter, "sh", str(tmp_path), str(REPOSITORY), sys.executable, script]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode
    assert "deploy.lab.errors.Unsupported: The machines to be lent need user namespaces" in told.stderr
    assert "no sysctl forbids them, but the kernel allows none in a chroot" in told.stderr


if __name__ == "__main__":
    _ping_across()
