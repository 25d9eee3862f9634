"""One cloud from start to end: `run` is its first process; `up`, `down` and `status` deal with a `run` in the background.

Ready is told to whoever set NOTIFY_SOCKET (sd_notify(3)), as the project's services do.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path

from deploy.openstack import hypervisor, operator, programs, template
from deploy.openstack.crew import DIE_WITH_PARENT, Crew
from deploy.openstack.errors import AlreadyRunning, CloudFailed, NotInstalled, NotRunning
from deploy.openstack.layout import PROJECT, Cloud, Profile
from deploy.openstack.programs import Report

STOP_TIMEOUT = 30.0  # seconds
LOOK_AGAIN = 0.05  # seconds
START_TIME = 19  # of the fields after the command in /proc/PID/stat (proc_pid_stat(5): field 22)


async def run(cloud: Cloud, report: Report) -> None:
    """Bring a cloud up, tell that it is ready, and keep it until SIGTERM or SIGINT or until a part of it ends."""
    if found := programs.missing(cloud.profile):
        raise NotInstalled(f"{', '.join(found)} cannot be run; use: deploy/setup --openstack")
    if pid(cloud.state) is not None:
        raise AlreadyRunning(f"A cloud runs on {cloud.state} already.")
    cloud.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    cloud.pid_file.write_text(f"{os.getpid()} {_started(os.getpid())} {' '.join(options(cloud))}")
    crew = Crew(cloud.logs, programs.environment(cloud))
    try:
        await _until_told(_live(cloud, crew, report))
    finally:
        await crew.stop()
        hypervisor.end_guests(cloud)
        cloud.pid_file.unlink(missing_ok=True)


async def _live(cloud: Cloud, crew: Crew, report: Report) -> None:
    if not cloud.data.exists():
        source = await template.ensure()
        report("template")
        unfinished = cloud.state / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished)
        unfinished.rename(cloud.data)
    programs.write_files(cloud)
    await programs.start(cloud, crew, report)
    await asyncio.to_thread(operator.set_up, cloud)
    report("ready")
    _notify("READY=1")
    await crew.watch()


async def _until_told(life: Coroutine[None, None, None]) -> None:
    task = asyncio.create_task(life)
    loop = asyncio.get_running_loop()
    told = False

    def end() -> None:
        nonlocal told
        told = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    try:
        await task
    except asyncio.CancelledError:
        if not told:
            raise


def up(cloud: Cloud, report: Report, *, leashed: bool = False) -> None:
    """Start `run` in the background, in a session and process group of its own, and return when it is ready.

    `leashed`: it ends with the thread that calls this, however that ends, and all of it ends at once.
    """
    if pid(cloud.state) is not None:
        raise AlreadyRunning(f"A cloud runs on {cloud.state} already.")
    cloud.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = cloud.state / "run.log"
    place = cloud.state / "notify"
    place.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, log.open("wb") as output:
        ready.bind(str(place))
        ready.settimeout(LOOK_AGAIN)
        command = [sys.executable, "-m", "deploy.openstack", "run", "--state", str(cloud.state), *options(cloud)]
        process = subprocess.Popen(
            [*(DIE_WITH_PARENT if leashed else ()), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=PROJECT,
            env={**os.environ, "NOTIFY_SOCKET": str(place)},
            start_new_session=True,
        )
        _follow(process, ready, log, report)


def down(state: Path) -> None:
    """End a cloud and return when it is gone."""
    found = pid(state)
    if found is None:
        raise NotRunning(f"No cloud runs on {state}.")
    os.kill(found, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT
    while pid(state) is not None:
        if time.monotonic() > deadline:
            raise CloudFailed(f"Process {found} did not end within {STOP_TIMEOUT:g} s.")
        time.sleep(LOOK_AGAIN)


def pid(state: Path) -> int | None:
    """The first process of the cloud that runs on a state."""
    try:
        number, started, *_ = (state / "pid").read_text().split()
        return int(number) if _started(int(number)) == started else None
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None


def cloud(state: Path) -> Cloud:
    """The cloud that runs on a state."""
    if pid(state) is None:
        raise NotRunning(f"No cloud runs on {state}.")
    words = (state / "pid").read_text().split()[2:]
    told = dict(zip(words[::2], words[1::2], strict=True))
    return Cloud(state, told["--address"], Profile(told["--profile"]), told["--public"], told.get("--uplink"))


def members(state: Path) -> dict[int, str]:
    """All processes of a running cloud: pid and command line."""
    leader = pid(state)
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if os.getpgid(int(path.name)) == leader:
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ").strip()
    return found


def options(cloud: Cloud) -> list[str]:
    """The words of the command line that mean this cloud, without its state."""
    uplink = [] if cloud.uplink is None else ["--uplink", cloud.uplink]
    return ["--profile", cloud.profile, "--address", cloud.address, "--public", cloud.public, *uplink]


def _follow(process: subprocess.Popen[bytes], ready: socket.socket, log: Path, report: Report) -> None:
    """Hand on what `run` reports until it is ready."""
    with log.open() as lines:
        while True:
            ended = process.poll() is not None
            for line in lines:
                report(line.strip())
            if ended:
                raise CloudFailed(f"It did not start; see {log}.")
            with suppress(TimeoutError):
                if ready.recv(100) == b"READY=1":
                    return


def _notify(text: str) -> None:
    if place := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(text.encode(), place)


def _started(number: int) -> str:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[START_TIME]
    except FileNotFoundError:
        raise ProcessLookupError from None
