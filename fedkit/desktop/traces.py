"""What is left of an attachment on this machine, in a folder of its own: whose it is, and what is to be undone.

A folder is locked while its process lives. Whoever finds one that is not locked cleans up after a process that was killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkit.desktop.errors import DesktopError
from fedkit.node.kit.doing import carry_out, undo
from fedkit.node.kit.files import Block
from fedkit.node.kit.journal import Journal
from fedkit.node.kit.system import System

HOSTS = "/etc/hosts"
ALL_USERS = Path("/var/lib/fedmesh-desktop")


def folder_of_this_user(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the folders are: root's change the machine, others' do not."""
    if os.geteuid() == 0:
        return ALL_USERS
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "fedmesh-desktop"


@dataclass(frozen=True)
class Trace:
    """One attachment's folder. `about` says whose it is, and which process cares for it."""

    folder: Path
    about: Mapping[str, Any]

    @property
    def state(self) -> Path:
        """For its portal."""
        return self.folder / "portal"

    def put_names(self, lines: Sequence[str]) -> None:
        """Add a block to the machine's hosts file; raises `DesktopError`."""
        journal = self._journal()
        block = Block(HOSTS, self._title, [*lines])
        with journal.open():
            failed = carry_out(self._system(), journal, [block], {"Block": Block})
        if failed:
            raise DesktopError(f"The names cannot be written: {failed[0]}.")

    def clean(self) -> None:
        """Put everything back, and forget it; raises `DesktopError`. Whoever calls this holds the lock."""
        journal = self._journal()
        with journal.open():
            failed = undo(self._system(), journal, {"Block": Block})
        if failed:
            raise DesktopError(f"Not all can be put back: {failed[0]}.")
        shutil.rmtree(self.folder)
        with suppress(OSError):  # there are others
            self.folder.parent.rmdir()

    def _journal(self) -> Journal:
        return Journal(self.folder / "changes")

    def _system(self) -> System:
        return System(state=str(self.folder), say=lambda _words: None)

    @property
    def _title(self) -> str:
        return f"fed experiment attach {self.folder.name}"


@contextmanager
def trace(attachment: str, about: Mapping[str, Any], base: Path | None = None) -> Iterator[Trace]:
    """A new one, whose process this is; everything is put back when its context is left. Raises `DesktopError`."""
    folder = (base or folder_of_this_user()) / attachment
    try:
        folder.mkdir(mode=0o700, parents=True)
        descriptor = _lock(folder)
        (folder / "about.json").write_text(json.dumps({**about, "process": os.getpid()}))
    except OSError as error:
        raise DesktopError(f"{folder} cannot be used: {error.strerror}.") from error
    if descriptor is None:
        raise DesktopError(f"{folder} is another process's, which cleans up; try again.")
    found = Trace(folder, about)
    try:
        yield found
    finally:
        found.clean()
        os.close(descriptor)


@contextmanager
def abandoned(base: Path | None = None) -> Iterator[list[Trace]]:
    """Those of processes that were killed, locked meanwhile."""
    held: list[Trace] = []
    descriptors = []
    try:
        for one in listed(base):
            descriptor = _lock(one.folder)
            if descriptor is not None:
                descriptors.append(descriptor)
                held.append(one)
        yield held
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def listed(base: Path | None = None) -> list[Trace]:
    """All that there are."""
    found = []
    for folder in sorted((base or folder_of_this_user()).glob("*-*-*-*-*")):
        try:
            about = json.loads((folder / "about.json").read_text())
        except (OSError, ValueError):  # it was killed before it had done anything
            about = {}
        found.append(Trace(folder, about if isinstance(about, dict) else {}))
    return found


def end(one: Trace) -> None:
    """Ask the process that cares for it to end, if there is one, and wait until it has."""
    if (descriptor := _lock(one.folder)) is not None:
        os.close(descriptor)
        return
    process = one.about.get("process")
    if isinstance(process, int) and _has_open(process, one.folder):
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(process, signal.SIGTERM)
    if (descriptor := _lock(one.folder, wait=True)) is not None:
        os.close(descriptor)


def _has_open(process: int, folder: Path) -> bool:
    """Whether a process is the one that cares for a folder, and not another with the number of a dead one."""
    try:
        return any(path.readlink() == folder for path in Path(f"/proc/{process}/fd").iterdir())
    except OSError:
        return False


def _lock(folder: Path, *, wait: bool = False) -> int | None:
    """The folder, locked; None if somebody else has it locked, or if it has gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
