"""What exists here, one folder for each instance, on disk before the instance is (`folders`).

What is in the book after a crash is all that can exist. Nothing else remembers numbers and addresses: what is free follows
from the records. No secret is written: a machine's keys go straight into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from federation_member.middleware.containers.folders import Folders
from federation_member.middleware.contract import UnusableSpec
from fedkit.protocol.lending import Instance

RECORD = "record.json"
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Part(BaseModel):
    """A node, portal or gate of a segment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    address: str
    host_key: str
    digest: str  # of what it was made from


class Record(BaseModel):
    """One instance. `number` is small and unique among those that exist; names and ids outside derive from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    kind: str
    number: int
    instance: Instance
    gateway: str | None = None
    joined: dict[str, str | None] = {}  # key of a private network to the machine's address in it, if it has one there
    account: str | None = None  # that it runs for; none: it was made before there were accounts
    carries_frames: bool = False  # a machine that may administer its network
    verbatim: bool = False  # a network for such machines
    parts: dict[str, Part] = {}  # of a segment
    complete: bool = False  # it once ran; without this it was never handed out

    @property
    def addresses(self) -> list[str]:
        """All that it has in the intranet."""
        own = [self.instance.address] if self.instance.address else []
        return own + [part.address for part in self.parts.values()]


class Book:
    """The records."""

    def __init__(self, folder: Path) -> None:
        self._folders = Folders(folder, RECORD, TypeAdapter(Record))

    def load(self) -> None:
        """Read what is there."""
        self._folders.load()

    def __iter__(self) -> Iterator[Record]:
        return iter(self._folders)

    def get(self, key: str) -> Record | None:
        """The record of `key`."""
        return self._folders.get(key)

    def folder(self, key: str) -> Path:
        """Where the instance's own files are."""
        return self._folders.path(key)

    def free_number(self) -> int:
        """The smallest number that no instance has."""
        taken = {record.number for record in self}
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    def put(self, record: Record) -> None:
        """Write a record; from its first writing on the instance exists, if only in part."""
        self._folders.put(record.key, record)

    def remove(self, key: str) -> None:
        """Forget the instance, after nothing of it exists any more."""
        self._folders.remove(key)


def check_key(key: str) -> None:
    """Refuse a key that would not do as a file name."""
    if not KEY.fullmatch(key):
        raise UnusableSpec("The key of an instance is 1 to 64 letters, digits, - and _.")
