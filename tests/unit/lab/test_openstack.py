"""What is written for the services of a lab's OpenStack, without any of them."""

from __future__ import annotations

import asyncio
import configparser
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.lab.client import ended
from deploy.openstack import config, running
from deploy.openstack.__main__ import _cloud, _parser
from deploy.openstack.crew import Crew, Program
from deploy.openstack.errors import CloudFailed, NotRunning, UnusablePlace
from deploy.openstack.layout import Cloud, Profile
from tests.support.checkout import REPOSITORY
from tests.support.openstack import loopback_of

PRETENDED = f"""\
#!{sys.executable}
import os, pathlib, socket, sys, time
pathlib.Path(sys.argv[sys.argv.index("--state") + 1], "pretended").write_text(str(os.getpid()))
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"""
WHOEVER_WANTS_IT = """\
import sys
from pathlib import Path
from deploy.openstack import running
from deploy.openstack.layout import Cloud
state, sys.executable = Path(sys.argv[1]), sys.argv[2]
running.up(Cloud(state, "127.9.9.9"), print, leashed=True)
print("up", flush=True)
sys.stdin.read()
"""
SMALL = Cloud(Path("/s"), "127.9.9.9")
FULL = Cloud(Path("/s"), "127.9.9.9", Profile.FULL, "10.50.2.0/24", "machines")


@pytest.mark.parametrize("cloud", [SMALL, FULL], ids=["small", "full"])
def test_every_file_is_read_back_as_it_was_meant(cloud: Cloud) -> None:
    for sections in config.files(cloud, "a secret").values():
        parser = configparser.ConfigParser(interpolation=None, default_section="no default")
        parser.read_string(config.render(sections))
        assert set(parser.sections()) == set(sections)
        for name, section in sections.items():
            assert set(parser[name]) == set(section)


def test_nothing_of_a_cloud_lies_outside_of_its_state_or_listens_elsewhere() -> None:
    for sections in config.files(SMALL, "a secret").values():
        for section in sections.values():
            for value in map(str, section.values()):
                assert not value.startswith("/") or value.startswith(("/s/", str(config.SHARE)))
                assert "http" not in value or "127.9.9.9" in value


@pytest.mark.parametrize("cloud", [SMALL, FULL], ids=["small", "full"])
def test_a_command_line_means_the_cloud_that_it_was_written_for(cloud: Cloud) -> None:
    assert _cloud(_parser().parse_args(["run", "--state", "/s", *running.options(cloud)])) == cloud


@pytest.mark.parametrize("state", ["/" + "x" * 200, "relative"])
def test_a_place_where_no_socket_can_be_is_refused(state: str) -> None:
    with pytest.raises(UnusablePlace):
        Cloud(Path(state), "127.0.0.1")


def test_an_address_that_is_none_and_guests_without_a_network_are_refused() -> None:
    with pytest.raises(UnusablePlace):
        Cloud(Path("/s"), "localhost")
    with pytest.raises(UnusablePlace):
        Cloud(Path("/s"), "127.0.0.1", Profile.FULL)


def test_a_process_of_the_same_number_is_not_taken_for_the_cloud(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()} 1 --profile small")
    assert running.pid(tmp_path) is None
    with pytest.raises(NotRunning):
        running.cloud(tmp_path)
    with pytest.raises(NotRunning):
        running.down(tmp_path)


def test_a_leashed_cloud_dies_with_whoever_started_it_and_was_killed(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text(PRETENDED)
    program.chmod(0o700)
    command = [sys.executable, "-c", WHOEVER_WANTS_IT, str(tmp_path), str(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        cloud = os.pidfd_open(int((tmp_path / "pretended").read_text()))
        try:
            parent.kill()
            assert ended(cloud, 60)
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(cloud, signal.SIGKILL)
            os.close(cloud)


def test_processes_have_loopback_addresses_of_their_own() -> None:
    assert len({loopback_of(pid) for pid in (1, 256, 257, 65535, 65536, 4194303)}) == 6


async def test_the_crew_tells_what_a_program_said_that_ended(tmp_path: Path) -> None:
    crew = Crew(tmp_path, dict(os.environ))
    with pytest.raises(CloudFailed, match="no such thing"):
        await crew.start(Program("broken", ["sh", "-c", "echo no such thing; exit 3"], tmp_path / "socket"))
    with pytest.raises(CloudFailed, match="status 4"):
        await crew.run("helper", ["sh", "-c", "exit 4"])
    await crew.stop()


async def test_the_crew_notices_an_end_and_ends_the_others(tmp_path: Path) -> None:
    crew = Crew(tmp_path, dict(os.environ))
    await crew.start(Program("lasting", ["sh", "-c", "echo $$; exec sleep 1000"], None))
    await crew.start(Program("short", ["sh", "-c", "sleep 0.2; exit 5"], None))
    with pytest.raises(CloudFailed, match="short ended with status 5"):
        await crew.watch()
    pid = int((tmp_path / "lasting.out").read_text())
    await crew.stop()
    await asyncio.sleep(0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
