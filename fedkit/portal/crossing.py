"""One crossing at one end: a tap, the plane by which its frames leave, and what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from dataclasses import dataclass

from fedkit.portal.frames import LARGEST, is_sound
from fedkit.portal.loops import LoopGuard, State, is_beacon
from fedkit.portal.planes.contract import Plane
from fedkit.portal.tap import Tap

FRAMES_PER_TURN = 64  # that one crossing may send before others have a turn
_nowhere = memoryview(bytearray(LARGEST))


@dataclass
class Counts:
    """Frames (super-frames count once) and octets since the start."""

    out_frames: int = 0
    out_octets: int = 0
    in_frames: int = 0
    in_octets: int = 0
    dropped: int = 0  # the line was full, or there was none
    looping: int = 0  # kept back while there was a second way between the two networks
    refused: int = 0  # frames of the peer that no kernel should see, or that it did not take


class Crossing:
    """Reads its tap while it exists; without a plane, frames are lost at once, for they must wait nowhere."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tag: int, tap: Tap, guard: LoopGuard) -> None:
        self._loop = loop
        self.guard = guard
        self.tag = tag
        self.tap = tap
        self.plane: Plane | None = None
        self.counts = Counts()
        self.broken = ""
        loop.add_reader(tap.fd, self._readable)

    def use(self, plane: Plane | None, uso: bool) -> None:
        """Send by this plane from now on; `uso`: the peer's kernel takes UDP in super-frames."""
        if self.plane is not plane:
            if self.plane is None:
                self.guard.join()
            self.plane = plane
            self.tap.offloads(plane is not None and plane.superframes, uso)

    def tick(self) -> None:
        """Look for a second way between the two networks, now and then."""
        if self.guard.tick(self._loop.time()) and self.plane is not None:
            with contextlib.suppress(OSError):  # no room: the next one may have
                os.write(self.tap.fd, self.guard.beacon)

    def deliver(self, record: memoryview) -> None:
        """A frame of the peer's side: let it out at this one."""
        if is_beacon(record):
            if self.guard.is_own(record):
                self.guard.came_back(self._loop.time())
                return
        elif self.guard.state is not State.OPEN:
            self.counts.looping += 1
            return
        if not is_sound(record):
            self.counts.refused += 1
            return
        try:
            os.write(self.tap.fd, record)
        except OSError:  # EINVAL: the kernel knows better; EIO: the interface is down; EAGAIN, ENOBUFS: no room
            self.counts.refused += 1
            return
        self.counts.in_frames += 1
        self.counts.in_octets += len(record)

    def _readable(self) -> None:
        plane, fd, counts = self.plane, self.tap.fd, self.counts
        octets = frames = 0
        for _ in range(FRAMES_PER_TURN):
            room = plane.room() if plane is not None else None
            try:
                size = os.readv(fd, (_nowhere if room is None else room,))
            except OSError as error:  # EAGAIN: that was all
                if error.errno == errno.EBADFD:
                    self._taken_away()
                break
            if room is None or plane is None:
                counts.dropped += 1
                continue
            if self.guard.state is not State.OPEN and not is_beacon(room):
                counts.looping += 1
                continue
            plane.commit(self.tag, size)
            octets += size
            frames += 1
        if plane is not None and frames:
            counts.out_frames += frames
            counts.out_octets += octets
            plane.flush()

    def _taken_away(self) -> None:
        """Somebody deleted the interface; its descriptor would be readable for ever, with nothing to read."""
        self._loop.remove_reader(self.tap.fd)
        self.broken = f"The tap {self.tap.name} was deleted."

    def close(self) -> None:
        """Read no more; the tap stays in its bridge."""
        self._loop.remove_reader(self.tap.fd)
        self.tap.close()
