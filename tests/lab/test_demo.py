"""The demo as people run it, seen from outside: its output, its exit status, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.lab.client import Lab
from deploy.lab.errors import NotUp
from deploy.lab.topology import Plan

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("namespaces")]
PROJECT = Path(__file__).parent.parent.parent
STORY = [sys.executable, "-m", "deploy.story"]
FED = [sys.executable, "-m", "deploy.cli", "demo"]


@pytest.fixture
def environment() -> Mapping[str, str]:
    """Gives the demo a name of its own, so that it stands beside a person's."""
    return {**os.environ, "FED_DEMO": f"test-demo-{os.getpid()}"}


def _heeds_interrupts() -> None:
    """Undo what a shell does to its background jobs, one of which these tests may be."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _told(environment: Mapping[str, str], *options: str) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(  # type: ignore[call-overload]
        [*STORY, *options], cwd=PROJECT, env=environment, text=True, preexec_fn=_heeds_interrupts, **pipes
    ) as story:
        try:
            yield story
        finally:
            story.kill()


def _run(environment: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)


def test_every_step_is_seen(environment: Mapping[str, str]) -> None:
    told = _run(environment, *STORY, "--once", "-o", "json")
    assert told.returncode == 0, told.stderr
    story = json.loads(told.stdout)
    assert story["ok"] is True
    assert all(step["ok"] and step["observed"] for step in story["steps"])
    names = [step["name"] for step in story["steps"]]
    assert "order fulfilled at site-b" in names
    assert names[-1] == "the sites are down"
    with pytest.raises(NotUp):
        Lab.attach(environment["FED_DEMO"])


def test_it_stays_up_until_interrupted(environment: Mapping[str, str]) -> None:
    with _told(environment) as story:
        assert story.stderr is not None
        for line in story.stderr:
            if "It stays up until Ctrl-C" in line:
                break
        status = _run(environment, *FED, "status", "-o", "json")
        assert json.loads(status.stdout)["sites"][0]["name"] == "site-a.test"
        assert "site-b.test" in _run(environment, *FED, "exec", "site-a", "fed", "members").stdout
        shown = _run(environment, *FED, "exec", "site-b/dmz", "ip", "-brief", "address")
        assert "192.168.2.2" in shown.stdout
        assert _run(environment, *FED, "exec", "site-b", "sh", "-c", "exit 7").returncode == 7
        story.send_signal(signal.SIGINT)
        assert story.wait(30) == 0
    assert _run(environment, *FED, "status").returncode == 3


def test_a_demo_that_cannot_start_says_so(environment: Mapping[str, str]) -> None:
    with Lab.up(environment["FED_DEMO"], Plan(1, ())):
        told = _run(environment, *STORY, "--once", "-o", "json")
    assert told.returncode == 1
    story = json.loads(told.stdout)
    assert story["ok"] is False
    assert "lab.already_up" in story["steps"][0]["observed"]


def test_up_and_down_on_the_command_line(environment: Mapping[str, str]) -> None:
    try:
        assert _run(environment, *FED, "up", "--sites", "1").returncode == 0
        assert _run(environment, *FED, "up", "--sites", "1").returncode == 0, "repeating it is harmless"
        assert "site-a.test" in _run(environment, *FED, "exec", "site-a", "fed", "members").stdout
    finally:
        assert _run(environment, *FED, "down").returncode == 0
    assert _run(environment, *FED, "down").returncode == 3
