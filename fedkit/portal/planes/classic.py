"""Plane (c): `tun@openssh.com` with Ethernet, frame by frame, for a peer that is plain OpenSSH (`ssh -w`, or sshd's PermitTunnel).

There is a channel for each crossing, its unit is the tag, and there are no records. The ten octets of the virtio-net header, which
are zero because the tap cuts and sums for this plane, stand where the packet's own ten octets go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fedkit.portal.channel import FrameChannel
from fedkit.portal.frames import ETHERNET, MTU, NO_OFFLOAD, VLAN_TAG, VNET
from fedkit.portal.planes.contract import Deliver, PlaneName, Traffic
from fedkit.portal.ssh import FrameConnection

WIRE_FRAME = ETHERNET + 2 * VLAN_TAG + MTU
SLOT = 1664  # octets: of a frame, its virtio-net header and padding, and one octet that shows a frame too long
LARGEST = VNET.size + WIRE_FRAME + 1
SLOTS = 192  # frames that may wait: 290 KB


class Classic:
    """Owner of one channel of type ETHERNET_TUNNEL; `channel` is set by who makes it."""

    name = PlaneName.CLASSIC
    superframes = False

    def __init__(
        self,
        conn: FrameConnection,
        tag: int,
        deliver: Deliver,
        opened: Callable[[], None],
        lost: Callable[[str], None],
    ) -> None:
        self._conn = conn
        self._tag = tag
        self._deliver = deliver
        self.opened = opened
        self.lost = lost
        self._view = memoryview(bytearray(SLOT * SLOTS))
        self._free = deque(range(0, SLOT * SLOTS, SLOT))
        self._waiting: deque[tuple[int, int]] = deque()
        self._incoming = bytearray(VNET.size + WIRE_FRAME)
        self.traffic = Traffic()
        self.channel: FrameChannel | None = None

    def room(self) -> memoryview | None:
        """See the contract."""
        if not self._free:
            return None
        start = self._free[0]
        return self._view[start : start + LARGEST]

    def commit(self, tag: int, size: int) -> None:
        """See the contract."""
        if size == LARGEST:
            self.traffic.spoilt += 1
            return
        self._waiting.append((self._free.popleft(), size - VNET.size))

    def flush(self) -> None:
        """See the contract."""
        channel = self.channel
        while self._waiting and channel is not None:
            start, size = self._waiting[0]
            if not channel.sendable(size):
                break
            self._conn.seal(channel, self._view, start + VNET.size, size)
            self.traffic.sent += size
            self._free.append(start)
            self._waiting.popleft()
        self._conn.push()

    # What the channel calls, besides `opened` and `lost`.

    def received(self, data: memoryview) -> None:
        """A frame came."""
        size = len(data)
        if not ETHERNET <= size <= WIRE_FRAME:
            self.traffic.spoilt += 1
            return
        self.traffic.received += size
        self._incoming[: VNET.size] = NO_OFFLOAD
        self._incoming[VNET.size : VNET.size + size] = data
        self._deliver(self._tag, memoryview(self._incoming)[: VNET.size + size])

    def writable(self) -> None:
        """The connection takes data again."""
        self.flush()
