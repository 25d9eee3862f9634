"""A dictionary on disk: one folder for each name, with one JSON file in it and room for whatever else belongs to the name.

A folder appears with its file in one rename and goes in one rename, so there is never half an entry; what a crash interrupted
is finished by the next `load`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from federation_member.middleware.contract import MiddlewareError

T = TypeVar("T")


class Folders(Generic[T]):
    """Entries by name, in memory and on disk alike; `file` is the name of the JSON file in each folder."""

    def __init__(self, root: Path, file: str, form: TypeAdapter[T]) -> None:
        self._root = root
        self._file = file
        self._form = form
        self._entries: dict[str, T] = {}

    def load(self) -> None:
        """Read what is there, and finish removals and additions that a crash interrupted."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._entries.clear()
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith("."):
                shutil.rmtree(folder)
                continue
            path = folder / self._file
            try:
                self._entries[folder.name] = self._form.validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                raise MiddlewareError(
                    f"{path} cannot be read ({error}); look what it was, then move it away."
                ) from error

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._entries.values()))

    def get(self, name: str) -> T | None:
        """The entry of that name."""
        return self._entries.get(name)

    def path(self, name: str) -> Path:
        """The folder of that name."""
        return self._root / name

    def put(self, name: str, entry: T) -> None:
        """Write a new entry, or the new state of one that is there."""
        if name in self._entries:
            self._write(self.path(name), entry)
        else:
            new = self._root / f".new-{name}"
            new.mkdir(mode=0o700)
            self._write(new, entry)
            new.rename(self.path(name))
            _sync(self._root)
        self._entries[name] = entry

    def remove(self, name: str) -> None:
        """Forget an entry that is there, and all that is in its folder."""
        gone = self._root / f".gone-{name}"
        self.path(name).rename(gone)
        _sync(self._root)
        del self._entries[name]
        shutil.rmtree(gone)

    def _write(self, folder: Path, entry: T) -> None:
        temporary = folder / f"{self._file}.new"
        with temporary.open("wb") as file:
            file.write(self._form.dump_json(entry))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(folder / self._file)
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
