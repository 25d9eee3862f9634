"""What exists here, one folder for each instance, on disk before anything else of it is (`containers.folders`).

libvirt holds the key of a domain, too, in its metadata (xml.py), so a domain whose record was lost is still known as ours. No
secret is written here: a machine's keys go onto its seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter

from federation_member.middleware.containers.folders import Folders
from federation_member.middleware.contract import MiddlewareError
from fedkit.protocol.lending import Instance, Power

RECORD = "record.json"
COMPUTE, NETWORK, VOLUME, ATTACHMENT, SNAPSHOT = "compute", "network", "volume", "attachment", "snapshot"


class Record(BaseModel):
    """One instance. `number` is small and unique among those that exist; names of interfaces derive from it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    kind: str
    number: int
    instance: Instance
    account: str
    gateway: str | None = None
    joined: dict[str, str | None] = {}  # key of a private network to the machine's address in it, if it has one there
    verbatim: bool = False  # a network that keeps no frame to itself
    image: str = ""  # of machine and snapshot: the configured image that they come from; empty: one from a URL
    machine: str = ""  # of attachment and snapshot: its key
    volume: str = ""  # of an attachment: its key
    power: Power = Power.RUNNING  # as it is to be
    started: bool = False  # work on it was begun by someone other than us: QEMU
    failed: str = ""  # why it will never be what was asked for
    complete: bool = False  # it was handed out


class Book:
    """The records."""

    def __init__(self, folder: Path) -> None:
        self._folders = Folders(folder, RECORD, TypeAdapter(Record))

    def load(self) -> None:
        """Read what is there."""
        self._folders.load()

    def of_kind(self, *kinds: str) -> Iterator[Record]:
        """The records of these kinds."""
        return (record for record in self if record.kind in kinds)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._folders)

    def get(self, key: str) -> Record | None:
        """The record of `key`."""
        return self._folders.get(key)

    def must(self, key: str) -> Record:
        """The record of `key`, which was deleted in the middle of something if it is not there."""
        record = self._folders.get(key)
        if record is None:
            raise MiddlewareError(f"{key} was deleted meanwhile.")
        return record

    def free_number(self) -> int:
        """The smallest number that no instance has."""
        taken = {record.number for record in self}
        return next(number for number in range(1, len(taken) + 2) if number not in taken)

    def put(self, record: Record) -> Record:
        """Write a record; from its first writing on the instance exists, if only in part."""
        self._folders.put(record.key, record)
        return record

    def change(self, record: Record, **changes: object) -> Record:
        """Write a changed record; return it."""
        return self.put(record.model_copy(update=changes))

    def remove(self, key: str) -> None:
        """Forget the instance, after nothing of it exists any more."""
        self._folders.remove(key)
