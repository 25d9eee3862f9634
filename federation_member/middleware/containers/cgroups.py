"""Whether control groups can be used here, and their removal where runc was killed before it could note them.

They can be where their file system is visible and writable: as real root usually, in a user namespace rarely. Without them a
machine is still bounded in processes and disk, not in memory and processor time.
"""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass
from pathlib import Path

REMOVAL_TIMEOUT = 10.0  # seconds
REMOVAL_PAUSE = 0.02  # seconds; the kernel tells nobody when a group becomes empty in version 1
NEEDED = frozenset({"cpu", "memory", "pids"})


@dataclass(frozen=True)
class Cgroups:
    """The roots of the hierarchies (one with version 2, many with version 1) that machines are put under."""

    roots: tuple[Path, ...]
    freezes: bool = True  # whether what is in a group can be paused

    @classmethod
    def find(cls, mountinfo: Path = Path("/proc/self/mountinfo")) -> Cgroups | None:
        """Return what is mounted, or None where limits cannot be set."""
        roots: list[Path] = []
        controllers: set[str] = set()
        for line in mountinfo.read_text().splitlines():
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                root = Path(before.split()[4])
                roots.append(root)
                listed = root / "cgroup.controllers"
                controllers |= set(listed.read_text().split()) if listed.exists() else set(options.split(","))
        usable = controllers >= NEEDED and all(os.access(root, os.W_OK) for root in roots)
        freezes = "freezer" in controllers or any((root / "cgroup.controllers").exists() for root in roots)
        return cls(tuple(roots), freezes) if usable else None

    async def remove(self, name: str) -> None:
        """Remove the groups called `name`; none there is success.

        What runs in them has been told to end, or ends because the runc that started it is gone; if it does not,
        `TimeoutError` says so.
        """
        async with asyncio.timeout(REMOVAL_TIMEOUT):
            for root in self.roots:
                while not _remove(root / name):  # noqa: ASYNC110  there is nothing to wait for but time
                    await asyncio.sleep(REMOVAL_PAUSE)

    def remove_empty(self, name: str) -> None:
        """Remove the groups called `name` unless there is something in them."""
        for root in self.roots:
            _remove(root / name)


def _remove(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
