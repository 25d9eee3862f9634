"""What the portals of a segment say of themselves: whether they are joined, by which plane, and what that was measured to do.

Each writes `brief.json` (fedkit/portal/status.py) into a folder that it shares with the host program: a file system of its own, of so
many octets and files and no more. Nothing that stands there is trusted, be it a link, a pipe, or no JSON at all.

    says so, and again within PATIENCE    joined        a connection that is made anew, or a portal that is started again, is no news
    says so no longer                     apart
    has never said anything               apart, and after PATIENCE not known: it is of a kind that says nothing

So whatever a portal says, that it is joined turns to and fro at most once in PATIENCE; all else waits until somebody looks.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from federation_member.middleware.containers.launch import MS_NODEV, MS_NOSUID, mount
from federation_member.middleware.containers.nodes import kernel

FOLDERS = "portals"  # in the host program's own place
FILE = "brief.json"
EVERY = 0.25  # seconds
PATIENCE = 10.0  # seconds; ten times what a portal takes to say it again
SIZE, FILES = 4 << 20, 32
LIMIT = 4096  # octets of the file
NAME = re.compile("[a-z0-9]{1,32}")  # of a plane
MEASURES = ("delay_ms", "mbps")
LEAST, MOST = 0.1, 1e6  # ms, and Mbit/s; what is less is nothing, what is more nonsense

Brief = dict[str, Any]
APART: Brief = {"joined": False, "plane": None, "delay_ms": None, "mbps": None}


@dataclass
class Watched:
    """One portal; `began` is when it was started. Pure."""

    began: float
    brief: Brief | None = None  # the last one that said that it is joined
    heard: float | None = None  # when
    stamp: Any = None
    has_spoken: bool = False

    def saw(self, stamp: Any, brief: Brief | None, now: float) -> None:
        """There is a file like this; one that has the `stamp` of the last one has been seen."""
        if brief is None or stamp == self.stamp:
            return
        self.stamp, self.has_spoken = stamp, True
        if brief["joined"]:
            self.brief, self.heard = brief | _steady(self.brief or APART, brief), now

    def told(self, now: float) -> Brief | None:
        """How it is; None if that is not known."""
        if self.heard is not None and now - self.heard < PATIENCE:
            return self.brief
        return APART if self.has_spoken or now - self.began < PATIENCE else None


class Portals:
    """All of a segment's that are watched, by name. `source` is what its mounts are called; files in them are `owner`'s."""

    def __init__(self, source: str, work: str, owner: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._source, self._work, self._owner, self._clock = source, work, owner, clock
        self._watched: dict[str, tuple[str, Watched]] = {}
        self._told: dict[str, bool | None] = {}  # whether each is joined
        self._due = 0.0

    def add(self, name: str, number: int) -> str:
        """Watch a portal from now on; return the folder that is to be shown to it, in the host program's place."""
        shown = f"{FOLDERS}/{number}"
        folder = f"{self._work}/{shown}"
        os.makedirs(folder, exist_ok=True)
        options = f"mode=0700,uid={self._owner},gid={self._owner},size={SIZE},nr_inodes={FILES}"
        mount(self._source, folder, "tmpfs", MS_NOSUID | MS_NODEV, options)
        self._watched[name] = folder, Watched(self._clock())
        return shown

    def remove(self, name: str) -> None:
        """It ends."""
        if name in self._watched:
            folder, _ = self._watched.pop(name)
            self._told.pop(name, None)
            kernel.unmount(folder)

    def brief(self, name: str) -> Brief | None:
        """How a portal is; None if that is not known, or it is none."""
        return self._watched[name][1].told(self._clock()) if name in self._watched else None

    @property
    def pause(self) -> float | None:
        """Seconds until it is time to look again; None: never."""
        return max(0.0, self._due - self._clock()) if self._watched else None

    def look(self) -> bool:
        """Look at all, if it is time; return whether there is news that nobody should wait for."""
        now = self._clock()
        if now < self._due:
            return False
        self._due = now + EVERY
        before = self._told
        for folder, watched in self._watched.values():
            watched.saw(*read(f"{folder}/{FILE}"), now)
        self._told = {
            name: None if (brief := watched.told(now)) is None else brief["joined"]
            for name, (_, watched) in self._watched.items()
        }
        return self._told != before


def read(path: str) -> tuple[Any, Brief | None]:
    """What stands there, and something that is another whenever it was written anew; nothing if it is not as it should be."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None, None
    try:
        state = os.fstat(descriptor)
        text = os.read(descriptor, LIMIT + 1) if stat.S_ISREG(state.st_mode) else b""
    finally:
        os.close(descriptor)
    try:
        found = json.loads(text) if len(text) <= LIMIT else None
    except (ValueError, RecursionError):
        found = None
    brief = _checked(found) if isinstance(found, dict) else None
    return (state.st_ino, state.st_mtime_ns), brief


def _checked(found: dict[str, Any]) -> Brief:
    plane = found.get("plane")
    return {
        "joined": found.get("joined") is True,
        "plane": plane if isinstance(plane, str) and NAME.fullmatch(plane) else None,
        "delay_ms": _number(found.get("delay_ms")),
        "mbps": _number(found.get("mbps")),
    }


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        return None
    return float(f"{value:.2g}") if value >= LEAST else 0.0


def _steady(before: Brief, now: Brief) -> Brief:
    """Measures are as they were until they are others by a quarter: nobody is to be told of every wink."""
    pairs = {name: (before[name], now[name]) for name in MEASURES}
    return {name: old for name, (old, new) in pairs.items() if old and new and old * 0.75 < new < old * 1.25}
