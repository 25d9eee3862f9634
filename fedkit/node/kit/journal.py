"""What the kit is about to change and what was there before: a line each, on disk before the change is made.

A line that was cut off is none: its change had not begun. What is undone is struck out by a line of its own. The folder goes when the
last change is undone, so that nothing of the kit is left.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "journal"


@dataclass
class Entry:
    """A change by its key: of which kind, what it wants, what was before, and whether it was made."""

    key: str
    kind: str
    wants: Mapping[str, Any]
    before: Any
    made: bool = False


class Journal:
    """The journal of one machine; `entries` are in the order in which they were made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._file = folder / NAME

    @contextmanager
    def open(self) -> Iterator[None]:
        """Hold it alone: whoever comes second waits."""
        lock = self._lock()
        try:
            self.read()
            yield
            if not self.entries:
                self._file.unlink(missing_ok=True)
                shutil.rmtree(self.folder)
        finally:
            os.close(lock)

    def _lock(self) -> int:
        """The folder, locked; whoever held it may have removed it in the end."""
        while True:
            self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # a daemon that is not root has its files below
            lock = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return lock
            os.close(lock)

    def record(self, entry: Entry) -> None:
        """Write it down; the change may begin after this."""
        self.entries[entry.key] = entry
        line = {"key": entry.key, "kind": entry.kind, "wants": dict(entry.wants), "before": entry.before}
        self._append(line)

    def made(self, key: str) -> None:
        """It was made to the end."""
        if not self.entries[key].made:
            self.entries[key].made = True
            self._append({"made": key})

    def strike(self, key: str) -> None:
        """It was undone."""
        del self.entries[key]
        self._append({"undone": key})

    def _append(self, line: Mapping[str, Any]) -> None:
        with os.fdopen(os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as file:
            file.write(b"\n" + json.dumps(line).encode() + b"\n")  # the first \n ends a line that was cut off
            file.flush()
            os.fsync(file.fileno())
        _sync(self.folder)

    def read(self) -> None:
        """Read it, without holding it."""
        self.entries.clear()
        try:
            lines = self._file.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        for line in lines:
            said = _parsed(line)
            if "key" in said:
                self.entries[said["key"]] = Entry(said["key"], said["kind"], said["wants"], said["before"])
            elif "made" in said:
                self.entries[said["made"]].made = True
            elif "undone" in said:
                self.entries.pop(said["undone"], None)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
