"""An ssh channel that carries frames; it is asyncssh's channel and our end of it at once, as few octets are copied as can be.

Two kinds, by the type that is asked for when it is opened (RFC 4254 §5.1):

    frames@fedmesh      between our portals: each CHANNEL_DATA holds whole records (`frames.py`)
    tun@openssh.com     with OpenSSH: each CHANNEL_DATA is one Ethernet frame (OpenSSH's PROTOCOL, 2.3)

What is sent must be whole: a frame cut in two at the end of a window would be two broken frames at the far tap, so whoever
sends asks `sendable` first and keeps or drops the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from asyncssh import ProtocolError
from asyncssh.packet import SSHPacket, String, UInt32

from fedkit.portal.outbox import PACKET

if TYPE_CHECKING:
    from fedkit.portal.ssh import FrameConnection

FRAMES, ETHERNET_TUNNEL = "frames@fedmesh", "tun@openssh.com"
ETHERNET_MODE = 2  # SSH_TUNMODE_ETHERNET
MSG_CHANNEL_OPEN, MSG_CHANNEL_WINDOW_ADJUST, MSG_CHANNEL_DATA = 90, 93, 94
MSG_CHANNEL_CLOSE, MSG_CHANNEL_FAILURE = 97, 100
WINDOW = 16 * 1024 * 1024  # octets: a tap takes frames at once, so this only has to hold what is on the way
DATAGRAM_OVERHEAD = 4  # octets that OpenSSH's receiving end counts for each frame, and its sending end does not


class Frames(Protocol):
    """Who owns a channel; `channel` is set when there is one."""

    channel: FrameChannel | None

    def opened(self) -> None:
        """Frames may be sent."""

    def received(self, data: memoryview) -> None:
        """What one packet held; the view is valid until this returns. Raises `Violation`."""

    def writable(self) -> None:
        """The connection, or the window, takes frames again."""

    def lost(self, reason: str) -> None:
        """There is no channel (any more)."""


class FrameChannel:
    """Made at the end that opens, then `open`; made for a request at the other end, then asyncssh calls `process_open`."""

    def __init__(self, conn: FrameConnection, kind: str, owner: Frames) -> None:
        self._conn = conn
        self._owner: Frames | None = owner
        self._overhead = DATAGRAM_OVERHEAD if kind == ETHERNET_TUNNEL else 0
        self._kind = kind
        self._opened = self._close_sent = False
        self._granted = WINDOW
        self._window = 0
        self.peer = 0
        self._number = conn.add_channel(self)  # type: ignore[arg-type]

    def open(self, *args: int) -> None:
        """Ask the peer for it."""
        self._conn.send_packet(
            MSG_CHANNEL_OPEN,
            String(self._kind),
            UInt32(self._number) + UInt32(WINDOW) + UInt32(PACKET),
            b"".join(UInt32(arg) for arg in args),
        )

    def sendable(self, size: int) -> bool:
        """Whether `size` octets may be sent now as one packet."""
        return self._opened and size + self._overhead <= self._window and self._conn.ready

    def count(self, size: int) -> None:
        """So many octets were sent."""
        self._window -= size + self._overhead

    def send(self, data: bytes) -> None:
        """Send a little, ahead of whatever waits."""
        if self._opened and not self._close_sent and len(data) <= self._window:
            self._window -= len(data)
            self._conn.send_packet(MSG_CHANNEL_DATA, UInt32(self.peer) + String(data))

    def writable(self) -> None:
        """The connection takes data again."""
        if self._owner is not None:
            self._owner.writable()

    def data(self, data: memoryview) -> None:
        """The data of one packet."""
        self._granted -= len(data)
        if self._granted < 0 or not self._opened:
            raise ProtocolError("Data that the window does not allow")
        if self._owner is not None:
            self._owner.received(data)
        if self._granted < WINDOW // 2 and not self._close_sent:
            more = WINDOW - self._granted
            self._granted = WINDOW
            self._conn.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(self.peer) + UInt32(more))

    def close(self) -> None:
        """Send no more; also called by asyncssh when it disconnects."""
        self._owner = None
        if self._opened and not self._close_sent:
            self._send_close()

    def _send_close(self) -> None:
        self._close_sent = True
        self._conn.send_packet(MSG_CHANNEL_CLOSE, UInt32(self.peer))

    # What asyncssh calls.

    def process_open(self, peer: int, window: int, largest: int, _session: object) -> None:
        """The peer asked for it, and may have it."""
        self._begin(peer, window, largest)
        self._conn.send_channel_open_confirmation(peer, self._number, WINDOW, PACKET)
        if self._owner is not None:
            self._owner.opened()

    def process_open_confirmation(self, peer: int, window: int, largest: int, _rest: SSHPacket) -> None:
        """The peer gives it."""
        if self._opened:
            raise ProtocolError("Channel not being opened")
        self._begin(peer, window, largest)
        if self._owner is not None:
            self._owner.opened()
        else:
            self._send_close()

    def _begin(self, peer: int, window: int, largest: int) -> None:
        if self._kind == FRAMES and largest < PACKET:
            raise ProtocolError("Packets too small for frames")
        self._opened = True
        self.peer, self._window = peer, window

    def process_open_failure(self, _code: int, reason: str, _lang: str) -> None:
        """The peer does not give it."""
        if self._opened:
            raise ProtocolError("Channel not being opened")
        self._gone(reason or "The peer refuses the channel")

    def process_connection_close(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._gone(str(exc or "The connection is closed"))

    def _gone(self, reason: str) -> None:
        owner, self._owner = self._owner, None
        self._opened = False
        self._conn.remove_channel(self._number)
        if owner is not None:
            owner.lost(reason)

    def log_received_packet(self, *_args: object) -> None:
        """Called by asyncssh for each packet that takes the long way; data is not logged."""

    def process_packet(self, kind: int, _seq: int, packet: SSHPacket) -> bool:
        """Take one packet that took the long way."""
        match kind:
            case 94:  # data
                self.data(memoryview(packet.get_string()))
            case 93:  # window adjust
                self._window = min(self._window + packet.get_uint32(), 2**32 - 1)
                self.writable()
            case 96:  # end of data: a tap has none
                pass
            case 97:  # close
                if not self._close_sent:
                    self._send_close()
                self._gone("The peer closed the channel")
            case 98:  # request: there are none on such channels
                packet.get_string()
                if packet.get_boolean():
                    self._conn.send_packet(MSG_CHANNEL_FAILURE, UInt32(self.peer))
            case _:
                raise ProtocolError(f"Unexpected message {kind} on a channel of frames")
        return True
