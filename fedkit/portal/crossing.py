"""One crossing at one end: a tap, the plane by which its frames leave, and what became of them.

tap ─► guard ─► (line) ─► plane          a line (line.py) only where frames are to be late, or lost
tap ◄─ (line) ◄─ guard ◄─ whichever plane
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from fedkit.portal.config import CrossingConfig
from fedkit.portal.counts import Counts
from fedkit.portal.frames import LARGEST, is_sound
from fedkit.portal.line import Line, Outgoing
from fedkit.portal.loops import LoopGuard, State, is_beacon
from fedkit.portal.planes.contract import Outlet, Plane
from fedkit.portal.tap import Tap

FRAMES_PER_TURN = 64  # that one crossing may send before others have a turn
_nowhere = memoryview(bytearray(LARGEST))


class Crossing:
    """Reads its tap while it exists; without a plane, frames are lost at once, for they must wait nowhere.

    `room` is what may wait of each direction that is to be late, in octets; `chance` decides what is lost.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: CrossingConfig,
        tap: Tap,
        guard: LoopGuard,
        chance: Callable[[], float],
        room: int,
    ) -> None:
        out, back = replace(config.out, room=room), replace(config.back, room=room)
        self._loop = loop
        self.guard = guard
        self.tag = config.tag
        self.tap = tap
        self.takes_uso = tap.takes_uso and not out.loss and not back.loss
        self.plane: Plane | None = None
        self.counts = counts = Counts()
        self.broken = ""
        self._outlet: Outlet | None = None
        self._out = Outgoing(loop, self.tag, out, counts, chance) if out else None
        self._back = Line(loop, back, counts, self._arrive_late, chance) if back else None
        loop.add_reader(tap.fd, self._readable)

    def use(self, plane: Plane | None, uso: bool) -> None:
        """Send by this plane from now on; `uso`: the peer's kernel takes UDP in super-frames."""
        if self.plane is not plane:
            if self.plane is None:
                self.guard.join()
            self.plane = plane
            self._outlet = plane if self._out is None else self._out.use(plane)
            self.tap.offloads(plane is not None and plane.superframes, uso)

    def tick(self) -> None:
        """Look for a second way between the two networks, now and then."""
        if self.guard.tick(self._loop.time()) and self.plane is not None:
            with contextlib.suppress(OSError):  # no room: the next one may have
                os.write(self.tap.fd, self.guard.beacon())

    def deliver(self, record: memoryview) -> None:
        """A frame of the peer's side: let it out at this one."""
        late = self._back
        if is_beacon(record):
            if self.guard.is_own(record):
                self.guard.came_back(self._loop.time())
                return
            late = None
        elif self.guard.state is not State.OPEN:
            self.counts.looping += 1
            return
        if not is_sound(record):
            self.counts.refused += 1
        elif late is not None:
            late.take(record)
        else:
            self._arrive(record)

    def _arrive_late(self, records: Sequence[bytes]) -> None:
        for record in records:
            self._arrive(record)

    def _arrive(self, record: memoryview | bytes) -> None:
        try:
            os.write(self.tap.fd, record)
        except OSError:  # EINVAL: the kernel knows better; EIO: the interface is down; EAGAIN, ENOBUFS: no room
            self.counts.refused += 1
            return
        self.counts.in_frames += 1
        self.counts.in_octets += len(record)

    def _readable(self) -> None:
        outlet, fd, counts = self._outlet, self.tap.fd, self.counts
        octets = frames = 0
        for _ in range(FRAMES_PER_TURN):
            room = outlet.room() if outlet is not None else None
            try:
                size = os.readv(fd, (_nowhere if room is None else room,))
            except OSError as error:  # EAGAIN: that was all
                if error.errno == errno.EBADFD:
                    self._taken_away()
                break
            if room is None or outlet is None:
                counts.dropped += 1
                continue
            if self.guard.state is not State.OPEN and not is_beacon(room):
                counts.looping += 1
                continue
            outlet.commit(self.tag, size)
            octets += size
            frames += 1
        if outlet is not None and frames:
            counts.out_frames += frames
            counts.out_octets += octets
            outlet.flush()

    def _taken_away(self) -> None:
        """Somebody deleted the interface; its descriptor would be readable for ever, with nothing to read."""
        self._loop.remove_reader(self.tap.fd)
        self.broken = f"The tap {self.tap.name} was deleted."

    def close(self) -> None:
        """Read no more; the tap stays in its bridge."""
        self._loop.remove_reader(self.tap.fd)
        for line in (self._out, self._back):
            if line is not None:
                line.clear()
        self.tap.close()
