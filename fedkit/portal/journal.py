"""What this portal changed on its machine, written down before each change, so that it can be undone after any death.

Each entry says what was there before. An entry that is there already is kept as it is: after a `kill -9` the first one still
tells how things were before any portal ran.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from fedkit.portal.errors import AlreadyRunning, PortalError

Entry = dict[str, Any]


class Journal:
    """A small file; `kind` and `name` identify an entry. Its folder is locked until `close`, or until this process dies.

    Raises `AlreadyRunning`, and `PortalError` where it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.entries: list[Entry] = json.loads(path.read_text()) if path.exists() else []
        except BlockingIOError as error:
            raise AlreadyRunning(f"{path.parent} belongs to a portal that runs; stop it first.") from error
        except (OSError, ValueError) as error:
            raise PortalError(f"{path} tells what is to be undone, and cannot be read: {error}") from error

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such an entry."""
        return any(entry["kind"] == kind and entry["name"] == name for entry in self.entries)

    def note(self, kind: str, name: str, **before: Any) -> None:
        """Write down that this is about to be changed."""
        if not self.has(kind, name):
            self.entries.append({"kind": kind, "name": name, **before})
            self._write()

    def strike(self, entry: Entry) -> None:
        """It has been undone."""
        self.entries.remove(entry)
        self._write()

    def _write(self) -> None:
        replace(self._path, json.dumps(self.entries))

    def forget(self) -> None:
        """Remove the file, once nothing is left in it."""
        if not self.entries:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let others have the folder."""
        os.close(self._lock)


def replace(path: Path, text: str) -> None:
    """Write a file as a whole, or not at all."""
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
