"""Changes of files: whole texts, folders, a block in a text that others write, too, and lines of an accounts file.

A file is replaced by a rename, so it is never half written; only where it is a mount point (`/etc/hosts` of a container) it is written
in place, and a text that was cut off there is known by being the beginning of what was to be written.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkit.node.kit.errors import InUse
from fedkit.node.kit.system import System

SCRATCH = ".federation-new"
ENCODING, ERRORS = "utf-8", "surrogateescape"  # what others wrote is kept whatever it is


@dataclass(frozen=True)
class Text:
    """A file with this content, mode and owner."""

    path: str
    text: str
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def key(self) -> str:
        """Its path."""
        return f"file {self.path}"

    def before(self, system: System) -> Any:
        """What it was; None if it was not."""
        return _saved(system.path(self.path))

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Write it."""
        path = system.path(self.path)
        wanted = self.text.encode(ENCODING, ERRORS)
        if _saved(path) != _as_saved(wanted, self.mode, self.uid, self.gid):
            _replace(path, wanted, self.mode, self.uid, self.gid)

    def undo(self, system: System, before: Any) -> None:
        """Put back what was."""
        _restore(system.path(self.path), before)


@dataclass(frozen=True)
class Folder:
    """A folder that is there; one that was there already is used as it is. What is in one of ours goes with it."""

    path: str
    mode: int = 0o755
    uid: int = 0
    gid: int = 0

    @property
    def key(self) -> str:
        """Its path."""
        return f"folder {self.path}"

    def before(self, system: System) -> Any:
        """Whether it was there."""
        return system.path(self.path).is_dir()

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Make it."""
        path = system.path(self.path)
        path.mkdir(mode=0o700, exist_ok=True)
        if not before:
            _own(path, self.uid, self.gid)
            path.chmod(self.mode)

    def undo(self, system: System, before: Any) -> None:
        """Remove it with all that is in it, unless something is mounted there."""
        path = system.path(self.path)
        if before or not path.exists():
            return
        device = path.stat().st_dev
        for folder, names, _ in os.walk(path):
            for name in names:
                there = Path(folder, name)
                if there.lstat().st_dev != device:
                    raise InUse(f"something is mounted at {there}")
        if os.path.ismount(path):
            raise InUse(f"something is mounted at {path}")
        shutil.rmtree(path)


@dataclass(frozen=True)
class Block:
    """Lines at the end of a text of which others are authors, between two lines that say so."""

    path: str
    title: str
    lines: Sequence[str]

    @property
    def key(self) -> str:
        """Its file and title."""
        return f"block {self.title} of {self.path}"

    def before(self, system: System) -> Any:
        """The file."""
        return _saved(system.path(self.path))

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Put it in its place."""
        _put_in(system.path(self.path), before, self._with)

    def undo(self, system: System, before: Any) -> None:
        """Take it out; the file is as it was before if nobody else wrote to it."""
        _take_out(system.path(self.path), before, self._with(before), self._without)

    def _with(self, text: str | Any) -> str:
        text = self._without(_text(text))
        end = "" if not text or text.endswith("\n") else "\n"
        return "".join([text, end, *(f"{line}\n" for line in (self._begin, *self.lines, self._end))])

    def _without(self, text: str) -> str:
        head, begin, rest = text.partition(f"{self._begin}\n")
        _, end, tail = rest.partition(f"{self._end}\n")
        return head + tail if begin and end else text

    @property
    def _begin(self) -> str:
        return f"# {self.title} begin"

    @property
    def _end(self) -> str:
        return f"# {self.title} end"


@dataclass(frozen=True)
class Records:
    """Lines of a file such as /etc/passwd; a line whose name (up to the first colon) is there already is left to whoever wrote it."""

    path: str
    lines: Sequence[str]

    @property
    def key(self) -> str:
        """Its file."""
        return f"records of {self.path}"

    def before(self, system: System) -> Any:
        """The file."""
        return _saved(system.path(self.path))

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Add those that are not there."""
        _put_in(system.path(self.path), before, self._with)

    def undo(self, system: System, before: Any) -> None:
        """Remove those that were added."""
        theirs = set(_text(before).splitlines())

        def without(text: str) -> str:
            ours = {line for line in self.lines if line not in theirs}
            return "".join(line for line in text.splitlines(keepends=True) if line.rstrip("\n") not in ours)

        _take_out(system.path(self.path), before, self._with(before), without)

    def _with(self, text: str | Any) -> str:
        text = _text(text)
        names = {line.partition(":")[0] for line in text.splitlines()}
        new = [f"{line}\n" for line in self.lines if line.partition(":")[0] not in names]
        end = "" if not new or not text or text.endswith("\n") else "\n"
        return "".join([text, end, *new])


def _saved(path: Path) -> Any:
    """A file as the journal holds it."""
    try:
        info, content = path.stat(), path.read_bytes()
    except FileNotFoundError:
        return None
    return _as_saved(content, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid)


def _as_saved(content: bytes, mode: int, uid: int, gid: int) -> dict[str, Any]:
    return {"content": b64encode(content).decode(), "mode": mode, "uid": uid, "gid": gid}


def _text(saved: Any) -> str:
    if isinstance(saved, str):
        return saved
    return "" if saved is None else b64decode(saved["content"]).decode(ENCODING, ERRORS)


def _is_torn(now: Any, wanted: str) -> bool:
    """Whether a file is the beginning of what was to be written, and so was cut off."""
    text = _text(now)
    return now is not None and len(text) < len(wanted) and wanted.startswith(text)


def _edit(path: Path, now: Any, text: str, added: Any) -> None:
    """Write what becomes of a text, with the mode and owner that the file has."""
    wanted = added(text)
    if now is None or wanted != _text(now):
        saved = now or _as_saved(b"", 0o644, os.getuid(), os.getgid())
        _replace(path, wanted.encode(ENCODING, ERRORS), saved["mode"], saved["uid"], saved["gid"])


def _put_in(path: Path, before: Any, with_ours: Callable[[str | Any], str]) -> None:
    """Add what is ours to a file as it is now, or as it was if a crash left it torn."""
    now = _saved(path)
    _edit(path, now, _text(now if not _is_torn(now, with_ours(before)) else before), with_ours)


def _take_out(path: Path, before: Any, ours: str, without: Any) -> None:
    now = _saved(path)
    if now is None or _text(now) == ours or _is_torn(now, ours):
        _restore(path, before)
    elif (kept := without(_text(now))) != _text(now):
        _replace(path, kept.encode(ENCODING, ERRORS), now["mode"], now["uid"], now["gid"])
    _remove_scratch(path)


def _restore(path: Path, before: Any) -> None:
    _remove_scratch(path)
    if before is None:
        path.unlink(missing_ok=True)
    elif _saved(path) != before:
        _replace(path, b64decode(before["content"]), before["mode"], before["uid"], before["gid"])


def _scratch(path: Path) -> Path:
    return path.with_name(f"{path.name}{SCRATCH}")


def _remove_scratch(path: Path) -> None:
    if _scratch(path).exists():
        _scratch(path).unlink()


def _replace(path: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    try:
        _rename_over(path, content, mode, uid, gid)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV, errno.EROFS) or not path.exists():
            raise
        path.write_bytes(content)  # a mount point
        _remove_scratch(path)


def _rename_over(path: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    scratch = _scratch(path)
    scratch.unlink(missing_ok=True)
    with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        os.fchown(file.fileno(), uid, gid)  # whoever owns the folder may have put something else there meanwhile
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)


def _own(path: Path, uid: int, gid: int) -> None:
    info = path.stat()
    if (info.st_uid, info.st_gid) != (uid, gid):
        os.chown(path, uid, gid)
