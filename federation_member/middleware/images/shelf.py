"""Images on the disk: `<folder>/<sha256>.<format>` whole and checked, `<folder>/partial/` on its way.

A file gets its name in the shelf when it is whole and on the disk itself, so after a crash what has a name is good and all
else is thrown away. The time of last use is the file's own (mtime), which survives a restart. When room is needed for octets
that have really come, the image unused for longest goes; announced octets move nothing, or a liar could empty the shelf.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal
from uuid import uuid4

import structlog

from federation_member.middleware.contract import NoCapacity, Unavailable, UnusableImage
from federation_member.middleware.images import formats
from federation_member.middleware.images.config import ImagesConfig
from federation_member.middleware.images.formats import Disk

log = structlog.get_logger()
NAME = re.compile(r"[0-9a-f]{64}\.(qcow2|raw)")
EACH = 64 << 20  # octets between two looks at the disk's free space


@dataclass(frozen=True)
class Ready:
    """A whole image. It may leave the shelf at the caller's next `await`: open it or link it before, or ask again."""

    path: Path
    sha256: str
    format: Literal["qcow2", "raw"]
    virtual_size: int  # octets of the disk


class Shelf:
    """The folder and its bounds; one process at a time."""

    def __init__(self, config: ImagesConfig) -> None:
        self._config = config
        self._partial = config.folder / "partial"
        self._images: dict[str, Ready] = {}  # by checksum, the longest unused first
        self._coming: dict[Path, int] = {}  # octets of what is on its way
        self._lock: IO[bytes] | None = None

    def open(self) -> None:
        """Take the folder, throw away what a crash left, and find what is there; raise `Unavailable` if it is in use."""
        self._config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (self._config.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise Unavailable(f"Another member uses {self._config.folder}.") from error
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(mode=0o700)
        found = [path for path in self._config.folder.iterdir() if NAME.fullmatch(path.name)]
        self._images = {path.stem: ready for path in sorted(found, key=_used) if (ready := self._look(path))}

    def close(self) -> None:
        """Let the folder go; images stay."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def find(self, sha256: str) -> Ready | None:
        """The image with this checksum, which is thereby used."""
        ready = self._images.get(sha256)
        if ready is None:
            return None
        try:
            os.utime(ready.path)
        except FileNotFoundError:  # somebody tidied up behind our back
            del self._images[sha256]
            return None
        self._images[sha256] = self._images.pop(sha256)  # to the end
        return ready

    def begin(self) -> Path:
        """A place for an image that is to come; no file yet."""
        path = self._partial / uuid4().hex
        self._coming[path] = 0
        return path

    def grow(self, path: Path, octets: int) -> None:
        """Make room for an image that now has so many octets; raise `NoCapacity` where there is none."""
        before, self._coming[path] = self._coming[path], octets
        while self._octets() > self._config.cache:
            self._drop_oldest()
        if before // EACH != octets // EACH:
            while shutil.disk_usage(self._config.folder).free < self._config.spare + octets - before:
                self._drop_oldest()

    def keep(self, path: Path, sha256: str, disk: Disk) -> Ready:
        """Give a whole image, which was written through to the disk, its name."""
        ready = Ready(self._config.folder / f"{sha256}.{disk.format}", sha256, disk.format, disk.virtual_size)
        path.rename(ready.path)
        sync(self._config.folder)
        self._images[sha256] = ready
        return ready

    def forget(self, path: Path) -> None:
        """Remove what came of an image, if it was not kept."""
        self._coming.pop(path, None)
        path.unlink(missing_ok=True)

    def _octets(self) -> int:
        return sum(_size(ready.path) for ready in self._images.values()) + sum(self._coming.values())

    def _drop_oldest(self) -> None:
        if not self._images:
            raise NoCapacity("There is no room for this image here now.")
        ready = self._images.pop(next(iter(self._images)))
        ready.path.unlink(missing_ok=True)
        log.info("image_dropped", sha256=ready.sha256)

    def _look(self, path: Path) -> Ready | None:
        try:
            with path.open("rb") as file:
                disk = formats.inspect(file.read(formats.WANTED), path.stat().st_size, self._config.virtual_size)
        except UnusableImage as error:  # the operator lowered a limit
            log.warning("image_dropped", path=str(path), reason=error.message)
            path.unlink()
            return None
        assert disk is not None
        return Ready(path, path.stem, disk.format, disk.virtual_size)


def _used(path: Path) -> float:
    return path.stat().st_mtime


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sync(path: Path) -> None:
    """Write a file or folder through to the disk; it blocks."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
