"""Files of disks, made by qemu-img(1).

The format of a file is always told, never guessed from its content: a guest writes that content, and could make a raw disk look
like a qcow2 file with the host's files behind it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from federation_member.middleware.contract import MiddlewareError, NoCapacity, Unavailable

MAGIC = b"QFI\xfb"
IMG_TIMEOUT = 20.0  # seconds, of what takes no time
COPY_TIMEOUT = 3600.0  # seconds
ENTER = 0o711  # QEMU's user finds its files by name, and nobody can look around


@dataclass(frozen=True)
class Disk:
    """A file, and how to read it."""

    path: Path
    format: Literal["qcow2", "raw"]


def known(path: Path) -> Disk:
    """A disk that the site's operator put there; such a one may be recognised by its content."""
    with path.open("rb") as file:
        return Disk(path, "qcow2" if file.read(len(MAGIC)) == MAGIC else "raw")


async def virtual_size(disk: Disk) -> int:
    """The octets of the disk that a file describes."""
    told = await _img("info", "-U", "--output=json", "-f", disk.format, str(disk.path))
    return int(json.loads(told)["virtual-size"])


async def make_overlay(path: Path, base: Disk, size: int) -> Disk:
    """A disk that is like `base` at first, has `size` octets, and holds what is written to it."""
    await _img("create", "-q", "-f", "qcow2", "-b", str(base.path), "-F", base.format, str(path), str(size))
    return Disk(path, "qcow2")


async def make_empty(path: Path, size: int) -> Disk:
    """A disk full of zeros, which takes room only for what is written; it must not be there yet."""
    await _img("create", "-q", "-f", "qcow2", str(path), str(size))
    return Disk(path, "qcow2")


async def flatten(disk: Disk, path: Path) -> None:
    """Copy a disk that nobody writes, with all that lies behind it."""
    await _img("convert", "-f", disk.format, "-O", "qcow2", str(disk.path), str(path), seconds=COPY_TIMEOUT)


def new_folder(path: Path) -> Path:
    """An empty folder for files of one instance."""
    remove_folder(path)
    path.mkdir(parents=True)
    for folder in (path.parent, path):  # whatever the umask says
        folder.chmod(ENTER)
    return path


def remove_folder(path: Path) -> None:
    """Remove it with all that is in it; nothing there is success."""
    if path.exists():
        shutil.rmtree(path)


async def keep(disk: Disk, target: Path) -> Disk:
    """One more name for a file that may lose its own meanwhile, or a copy where it lies on another file system."""
    if (source := _link(disk.path, target)) is not None:
        await asyncio.to_thread(_copy, source, target)
    return Disk(target, disk.format)


def _link(source: Path, target: Path) -> IO[bytes] | None:
    """Link it; where that cannot be, open it, so that it stays readable whatever happens to its name."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        return source.open("rb")
    return None


def _copy(source: IO[bytes], target: Path) -> None:
    with source, target.open("xb") as copy:
        shutil.copyfileobj(source, copy)


def write_secret(path: Path, content: bytes) -> None:
    """Write a file for QEMU alone."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


async def _img(*arguments: str, seconds: float = IMG_TIMEOUT) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "qemu-img",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Unavailable("qemu-img is not installed here (package qemu-utils).") from error
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    except TimeoutError as error:
        raise Unavailable(f"qemu-img {arguments[0]} took longer than {seconds:.0f} s.") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        words = errors.decode(errors="replace").strip()[-300:]
        raise (NoCapacity if "No space left" in words else MiddlewareError)(words or f"qemu-img {arguments[0]} failed")
    return output.decode()
