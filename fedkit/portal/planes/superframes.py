"""Plane (a): records of super-frames in an ssh channel; whatever lets ssh through lets it through.

Both ends are ours, and asyncssh's connection encrypts. A packet holds whole records only, so nothing is ever put together.
The portals' own messages (tag `CONTROL`) use the same channel, ahead of what waits in the outbox.
"""

from __future__ import annotations

from collections.abc import Callable

from fedkit.portal.channel import FrameChannel
from fedkit.portal.frames import CONTROL, join, split
from fedkit.portal.outbox import HEAD, Outbox
from fedkit.portal.planes.contract import Deliver, PlaneName, Traffic
from fedkit.portal.ssh import FrameConnection


class SuperFrames:
    """Owner of a channel of type FRAMES; `channel` is set by who makes it."""

    name = PlaneName.SUPERFRAMES
    superframes = True

    def __init__(
        self,
        conn: FrameConnection,
        deliver: Deliver,
        told: Callable[[bytes], None],
        opened: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        self._conn = conn
        self._deliver = deliver
        self._told = told
        self.opened = opened
        self.lost = lost
        self._outbox = Outbox()
        self._blocked = False
        self.traffic = Traffic()
        self.channel: FrameChannel | None = None

    def room(self) -> memoryview | None:
        """See the contract."""
        return self._outbox.room()

    def commit(self, tag: int, size: int) -> None:
        """See the contract."""
        self._outbox.commit(tag, size)

    def flush(self) -> None:
        """See the contract."""
        channel = self.channel
        if channel is None:
            return
        while (packet := self._outbox.next()) is not None:
            if not channel.sendable(packet.fill):
                self._blocked = True
                break
            self.traffic.sent += packet.fill
            self._conn.seal(channel, packet.view, HEAD, packet.fill)
            self._outbox.done(packet)
        self._conn.push()

    def tell(self, message: bytes) -> None:
        """Send a message of the portals."""
        if self.channel is not None:
            self.channel.send(join([(CONTROL, message)]))

    # What the channel calls, besides `opened` and `lost`.

    def received(self, data: memoryview) -> None:
        """Records came."""
        self.traffic.received += len(data)
        for tag, record in split(data):
            if tag == CONTROL:
                self._told(bytes(record))
            else:
                self._deliver(tag, record)

    def writable(self) -> None:
        """The connection takes data again."""
        if self._blocked:
            self._blocked = False
            self._outbox.drained(self._conn.loop.time())
            self.flush()
