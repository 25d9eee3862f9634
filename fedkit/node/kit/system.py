"""The machine, as the kit sees it: files below a root, programs, processes by a mark, and which life it lives.

What lives in the kernel (routes, mounts, processes) is gone after a reboot, and must not be undone then: `life` tells one boot, or one
run of a container, from another. Processes that the kit starts carry a mark in their environment, which their children inherit and
which survives whatever happens to the kit; nothing else is ever ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from fedkit.node.kit.errors import CommandFailed, InUse, StrangeLink

MARK = "FEDERATION_PROCESS"
COMMAND_TIMEOUT = 60.0  # seconds
GRACE = 5.0  # seconds that a process has to end by itself
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def say(words: str) -> None:
    """One line for the log; whoever starts the kit says where that is."""
    print(words, flush=True)


@dataclass(frozen=True)
class System:
    """`kit` is how this program is started again, `state` where it keeps what it must not forget."""

    root: Path = Path("/")
    state: str = "/var/lib/federation"
    kit: Sequence[str] = ()
    say: Callable[[str], None] = say

    def path(self, path: str) -> Path:
        """A path of the machine; links are followed, so that what they lead to is changed and they stay.

        But for those that a person made, in a home for example: raises `StrangeLink`.
        """
        place = self.root / path.lstrip("/")
        for step in (*place.parents, place):
            if os.path.islink(step) and step.lstat().st_uid not in (0, os.geteuid()):
                raise StrangeLink(f"{step} is a link, and not root's")
        return Path(os.path.realpath(place))

    def find(self, program: str) -> str | None:
        """Where a program is."""
        return shutil.which(program, path=SEARCH)

    def run(self, *command: str, text: str = "") -> str:
        """What it prints; raises `CommandFailed` with what it says."""
        try:
            done = subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_TIMEOUT,
                env=os.environ | {"PATH": SEARCH, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandFailed(f"{command[0]}: {error}") from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().replace("\n", "; ")
            raise CommandFailed(f"{' '.join(command[:4])}: {said[-500:]}")
        return done.stdout

    @property
    def life(self) -> str:
        """This boot, or this container's run."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        began = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]
        return f"{boot}/{began}"

    def start(
        self,
        mark: str,
        command: Sequence[str],
        more: Mapping[str, str] = MappingProxyType({}),
        folder: str = "/",
        first: Callable[[], None] | None = None,
    ) -> None:
        """Start something that outlives the kit, by what it does `first`; what it prints goes where the kit's words go."""
        environment = {**os.environ, "PATH": SEARCH, **more, MARK: self._mark(mark)}
        try:
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=environment,
                cwd=folder,
                umask=0o022,
                preexec_fn=first,  # noqa: PLW1509  the kit has one thread
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CommandFailed(f"{command[0]}: {error}") from None

    def running(self, mark: str) -> list[int]:
        """The processes that carry a mark."""
        wanted = f"{MARK}={self._mark(mark)}".encode()
        return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if wanted in _environment(path)]

    def end(self, mark: str) -> None:
        """End them, with all that they started; raises `InUse` if something cannot be killed."""
        for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            until = time.monotonic() + patience
            while (found := self.running(mark)) and time.monotonic() < until:
                for process in found:
                    _kill(process, number)
                time.sleep(0.05)
        if found := self.running(mark):
            raise InUse(f"{mark} does not end: process {found[0]}")

    def _mark(self, name: str) -> str:
        return f"{self.path(self.state)}#{name}"


def _environment(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().split(b"\0")
    except OSError:  # it has just ended, or is not ours to look at
        return []


def _kill(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return
