"""Starts the processes of a cloud, watches them and ends them.

Each process dies with this one (PR_SET_PDEATHSIG), whatever ends it, so nothing of a cloud is left that nobody watches.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.openstack.errors import CloudFailed

READY_TIMEOUT = 300.0  # seconds; on a machine with nothing else to do all of it is up in a tenth of that
STOP_TIMEOUT = 3.0  # seconds from SIGTERM to SIGKILL
LOOK_AGAIN = 0.05  # seconds
LOG_TAIL = 3000  # octets
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


@dataclass(frozen=True)
class Program:
    """One process: what to run, and what shows that it is ready: an open port, a socket that listens, or nothing to wait for."""

    name: str
    command: Sequence[str | Path]
    ready: tuple[str, int] | Path | None
    environment: Mapping[str, str] = field(default_factory=dict)


class Crew:
    """The processes of one cloud; their output goes to `logs`."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self._logs = logs
        self._environment = environment
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, program: Program) -> None:
        """Start a program and return when it is ready."""
        if isinstance(program.ready, Path):
            program.ready.unlink(missing_ok=True)  # of one that was killed
        process = await self._spawn(program.name, program.command, program.environment)
        self._running[program.name] = process
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                while not _listens(program.ready):
                    if process.returncode is not None:
                        raise CloudFailed(f"{program.name} ended while it started: {self._tail(program.name)}")
                    await asyncio.sleep(LOOK_AGAIN)
        except TimeoutError:
            raise CloudFailed(f"{program.name} did not get ready: {self._tail(program.name)}") from None

    async def run(self, name: str, command: Sequence[str | Path], text: str = "") -> None:
        """Run a helper to its end, with `text` as its stdin; raise `CloudFailed` with what it said if that is bad."""
        process = await self._spawn(name, command, {}, asyncio.subprocess.PIPE)
        await process.communicate(text.encode())
        if process.returncode:
            raise CloudFailed(f"{name} failed with status {process.returncode}: {self._tail(name)}")

    async def watch(self) -> None:
        """Return never: raise `CloudFailed` when a process has ended."""
        waiting = {asyncio.create_task(process.wait()): name for name, process in self._running.items()}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        name = waiting[done.pop()]
        raise CloudFailed(f"{name} ended with status {self._running[name].returncode}: {self._tail(name)}")

    async def stop(self) -> None:
        """End all, the last one first; who was started first, the database, has nobody left who needs it."""
        first, *rest = self._running or [""]
        await self._end([self._running[name] for name in rest])
        await self._end([self._running[first]] if first else [])
        self._running.clear()

    async def _spawn(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str],
        stdin: int = asyncio.subprocess.DEVNULL,
    ) -> asyncio.subprocess.Process:
        with (self._logs / f"{name}.out").open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *DIE_WITH_PARENT,
                *command,
                stdin=stdin,
                stdout=output,
                stderr=output,
                env={**self._environment, **environment},
            )

    @staticmethod
    async def _end(processes: Sequence[asyncio.subprocess.Process]) -> None:
        alive = [process for process in processes if process.returncode is None]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in alive:
                with suppress(ProcessLookupError):
                    process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    await asyncio.gather(*(process.wait() for process in alive))
                    return

    def _tail(self, name: str) -> str:
        with (self._logs / f"{name}.out").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
            return file.read().decode(errors="replace").strip()


def _listens(place: tuple[str, int] | Path | None) -> bool:
    if place is None:
        return True
    family = socket.AF_UNIX if isinstance(place, Path) else socket.AF_INET
    with socket.socket(family) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(place) if isinstance(place, Path) else place) == 0
