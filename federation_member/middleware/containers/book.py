"""What exists here, one folder for each instance, on disk before the instance is.

The folder appears with its record in one rename and goes in one rename, so there is never half a record; what is in the
book after a crash is all that can exist. Nothing else remembers numbers and addresses: what is free follows from the records.
No secret is written: a machine's keys go straight into it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from federation_member.middleware.contract import MiddlewareError, UnusableSpec
from fedkit.protocol.lending import Instance

RECORD = "record.json"
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Record(BaseModel):
    """One instance. `number` is small and unique among those that exist; names and ids outside derive from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    kind: str
    number: int
    instance: Instance
    gateway: str | None = None
    joined: dict[str, str] = {}  # key of a private network to the machine's address in it
    account: str | None = None  # that it runs for; none: it was made before there were accounts
    complete: bool = False  # it once ran; without this it was never handed out


class Book:
    """The records, in memory and on disk alike."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records: dict[str, Record] = {}

    def load(self) -> None:
        """Read what is there, and finish removals and additions that a crash interrupted."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._records.clear()
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):
                shutil.rmtree(path)
                continue
            try:
                self._records[path.name] = Record.model_validate_json((path / RECORD).read_bytes())
            except (OSError, ValidationError) as error:
                raise MiddlewareError(
                    f"The record {path / RECORD} cannot be read ({error}); look what it was, then move it away."
                ) from error

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records.values()))

    def get(self, key: str) -> Record | None:
        """The record of `key`."""
        return self._records.get(key)

    def folder(self, key: str) -> Path:
        """Where the instance's own files are."""
        return self._folder / key

    def free_number(self) -> int:
        """The smallest number that no instance has."""
        taken = {record.number for record in self._records.values()}
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    def add(self, record: Record) -> None:
        """Write a new record; from here on the instance exists, if only in part."""
        new = self._folder / f".new-{record.key}"
        new.mkdir(mode=0o700)
        _write(new / RECORD, record)
        new.rename(self.folder(record.key))
        _sync(self._folder)
        self._records[record.key] = record

    def replace(self, record: Record) -> None:
        """Write the new state of a record."""
        temporary = self.folder(record.key) / f"{RECORD}.new"
        _write(temporary, record)
        temporary.rename(self.folder(record.key) / RECORD)
        _sync(self.folder(record.key))
        self._records[record.key] = record

    def remove(self, key: str) -> None:
        """Forget the instance, after nothing of it exists any more."""
        gone = self._folder / f".gone-{key}"
        self.folder(key).rename(gone)
        _sync(self._folder)
        del self._records[key]
        shutil.rmtree(gone)


def check_key(key: str) -> None:
    """Refuse a key that would not do as a file name."""
    if not KEY.fullmatch(key):
        raise UnusableSpec("The key of an instance is 1 to 64 letters, digits, - and _.")


def _write(path: Path, record: Record) -> None:
    with path.open("wb") as file:
        file.write(record.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
