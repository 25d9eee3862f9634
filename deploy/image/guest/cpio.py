"""Writes a cpio archive as the kernel unpacks it (format `newc`: Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import PurePosixPath

Entry = tuple[int, bytes]  # mode with the kind of file, and content (of a link: where it leads)


def program(content: bytes) -> Entry:
    """A file that can be executed."""
    return stat.S_IFREG | 0o755, content


def plain(content: bytes) -> Entry:
    """A file."""
    return stat.S_IFREG | 0o644, content


def link(target: str) -> Entry:
    """A symbolic link."""
    return stat.S_IFLNK | 0o777, target.encode()


def directory(mode: int = 0o755) -> Entry:
    """A folder."""
    return stat.S_IFDIR | mode, b""


def is_link(entry: Entry) -> bool:
    """Whether it is a symbolic link."""
    return stat.S_ISLNK(entry[0])


def archive(entries: dict[str, Entry]) -> bytes:
    """Return the archive of these paths (relative to /) and the folders above them; the same entries make the same octets."""
    whole = {str(parent): directory() for path in entries for parent in PurePosixPath(path).parents} | entries
    del whole["."]
    return b"".join(_records(whole))


def _records(entries: dict[str, Entry]) -> Iterator[bytes]:
    for number, (path, (mode, content)) in enumerate(sorted(entries.items()), start=1):
        yield _record(number, path, mode, content)
    yield _record(0, "TRAILER!!!", 0, b"")


def _record(number: int, path: str, mode: int, content: bytes) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    # inode, mode, uid, gid, links, time, size, four numbers of devices, length of the name, check sum
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08x" % value for value in fields)
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
