"""Builds the images that virtual machines boot from, and keeps them: `python -m deploy.image.guest tiny|portal|debian`.

`tiny` takes seconds and is for tests and demonstrations: a kernel, busybox, Dropbear, and user data that are a script. `portal` is the
same with what portals of experiments need: OpenSSH, taps and bridges. `debian` takes one or two minutes and is what a site would lend:
systemd, OpenSSH and the real cloud-init.

An image lies in a folder named after the versions of its packages and the text of its recipe, which is put there by one rename.
So it never changes once it is there (disks of machines are written over it), several processes may build at once, and newer
packages make another folder. Whoever wants the room back removes `.lab/images`.
"""

from __future__ import annotations

import fcntl
import hashlib
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.image.guest.debian import Debian
from deploy.image.guest.tiny import PORTAL, Tiny
from deploy.image.packages import ImageError

CACHE = Path(__file__).parents[3] / ".lab" / "images"
ARCHITECTURE = "x86_64"
Say = Callable[[str], None]


class Recipe(Protocol):
    """How an image is made."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def disk_format(self) -> str:
        """As qemu-img says."""

    @property
    def command_line(self) -> str:
        """Of the kernel."""

    @property
    def user_data(self) -> str:
        """What the image does with user data: cloud-init or script."""

    @property
    def sources(self) -> tuple[Path, ...]:
        """The files that decide what is in it, besides the packages."""

    def packages(self) -> list[str]:
        """Return `name=version` of what decides, sorted."""

    def make(self, packages: list[str], scratch: Path, into: Path) -> None:
        """Write `kernel`, `initrd` and `disk` into the folder `into`; `scratch` is for whatever is needed on the way."""


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (Tiny(), PORTAL, Debian())}


@dataclass(frozen=True)
class GuestImage:
    """An image, and how it is to be started: with this kernel, initrd and command line, and `disk` as first disk."""

    name: str
    folder: Path
    disk_format: str
    command_line: str
    user_data: str

    @property
    def kernel(self) -> Path:
        """The kernel, as a boot loader loads it."""
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        """What the kernel starts from."""
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """The first disk; machines write to a layer over it or a copy."""
        return self.folder / "disk"


def build(name: str, cache: Path = CACHE, say: Say = lambda line: print(line, file=sys.stderr)) -> GuestImage:
    """Return the image `name`, built from today's packages unless it is there already.

    Safe to call from several processes at once. Raises `ImageError`, which says what to do.
    """
    if platform.machine() != ARCHITECTURE:
        raise ImageError(f"Images of virtual machines are built for {ARCHITECTURE}, and this is {platform.machine()}.")
    recipe = RECIPES[name]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages = recipe.packages()
        folder = cache / f"{name}-{_digest(recipe, packages)[:16]}"
        if not folder.is_dir():
            for left in cache.glob(f"{name}.new-*"):  # by a builder that was killed: this one holds the lock
                shutil.rmtree(left)
            say(f"{name}: building the image from {len(packages)} packages")
            with tempfile.TemporaryDirectory(prefix=f"{name}.new-", dir=cache) as scratch:
                (fresh := Path(scratch) / "image").mkdir()
                recipe.make(packages, Path(scratch), fresh)
                fresh.rename(folder)
            say(f"{name}: {sum(path.stat().st_size for path in folder.iterdir()) / 2**20:.0f} MiB in {folder}")
    return _image(name, folder)


def newest(name: str, cache: Path = CACHE) -> GuestImage | None:
    """The image of that name that was built last, whatever it was made from; None if there is none."""
    folders = sorted(cache.glob(f"{name}-*"), key=lambda folder: folder.stat().st_mtime)
    return _image(name, folders[-1]) if folders else None


def _image(name: str, folder: Path) -> GuestImage:
    recipe = RECIPES[name]
    return GuestImage(name, folder, recipe.disk_format, recipe.command_line, recipe.user_data)


def _digest(recipe: Recipe, packages: list[str]) -> str:
    whole = hashlib.sha256("\n".join(packages).encode())
    for path in recipe.sources:
        whole.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()
