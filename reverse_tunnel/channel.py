"""One public connection, joined to one `forwarded-tcpip` channel (RFC 4254 §5, §7.2).

Public socket and channel are one object, because everything it does is move octets between the two:

    public socket ──recv──► packets ──► ssh connection     paused while the ssh socket is full or the machine's window is used up
    public socket ◄──send── window  ◄── ssh connection     the window opens only as fast as the public side takes the data

So what a peer can make the server hold is what it was granted: one window in this direction, one socket buffer in the other.
The window starts small and doubles while the public side keeps up and the machine must wait for it, which is when half of it is
used up within one round trip: long fast lines need megabytes, but where a machine is near, what lies in more than a megabyte of
window has left the processors' caches before it is sent on. What windows grow by comes out of a budget of the ssh connection; a
public client that never reads never gets more than the first.

Each half is closed on its own, as TCP does: EOF here becomes a half-close there.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncssh import ProtocolError
from asyncssh.packet import SSHPacket, String, UInt32

if TYPE_CHECKING:
    from reverse_tunnel.connection import TunedConnection

MSG_CHANNEL_OPEN = 90
MSG_CHANNEL_WINDOW_ADJUST = 93
MSG_CHANNEL_DATA = 94
MSG_CHANNEL_EXTENDED_DATA = 95
MSG_CHANNEL_EOF = 96
MSG_CHANNEL_CLOSE = 97
MSG_CHANNEL_REQUEST = 98
MSG_CHANNEL_FAILURE = 100

FIRST_WINDOW = 256 * 1024  # octets
LARGEST_WINDOW = 8 * 1024 * 1024  # twice the product of 100 MB/s and 40 ms: peers open their windows by halves
PACKET = 32 * 1024
WINDOW_LIMIT = 2**32 - 1  # RFC 4254 §5.2
DRAIN_SECONDS = 60.0  # how long a public client may take for the last data after the machine is done
MOST_PARTS = 512  # of one sendmsg: below IOV_MAX

_RESET = struct.pack("ii", 1, 0)  # struct linger: close with RST, so that nobody takes a cut for an end


class PortChannel:
    """A channel as `TunedConnection` and asyncssh see it; reads and writes the public socket itself."""

    __slots__ = (
        "_adjusted",
        "_close_sent",
        "_closed",
        "_conn",
        "_consumed",
        "_eof_received",
        "_eof_sent",
        "_gathered",
        "_granted",
        "_number",
        "_opened",
        "_pending",
        "_reading",
        "_sock",
        "_window",
        "packet",
        "peer",
        "send_window",
    )

    def __init__(self, conn: TunedConnection, sock: socket.socket, closed: Callable[[], None]) -> None:
        self._conn = conn
        self._sock: socket.socket | None = sock
        self._closed = closed
        self.peer = 0
        self.send_window = 0
        self.packet = PACKET
        self._window = self._granted = FIRST_WINDOW
        self._consumed = 0
        self._adjusted = conn.loop.time()  # when the machine was last told of window
        self._gathered: list[memoryview] = []
        self._pending = bytearray()
        self._opened = self._reading = False
        self._eof_sent = self._eof_received = self._close_sent = False
        self._number = conn.add_channel(self)  # type: ignore[arg-type]

    def open(self, host: str, port: int, origin: tuple[str, int]) -> None:
        """Ask the machine to take the connection; `host` and `port` as the machine spelled them in its request."""
        self._conn.send_packet(
            MSG_CHANNEL_OPEN,
            String("forwarded-tcpip"),
            UInt32(self._number) + UInt32(FIRST_WINDOW) + UInt32(PACKET),
            String(host) + UInt32(port) + String(origin[0]) + UInt32(origin[1]),
        )

    # Called by the connection for what arrives.

    def process_open_confirmation(self, peer: int, window: int, packet: int, _rest: SSHPacket) -> None:
        """The machine took the connection."""
        if self._opened:
            raise ProtocolError("Channel not being opened")
        self._opened = True
        now = self._conn.loop.time()
        self._conn.round_trip = min(self._conn.round_trip, now - self._adjusted)
        self._adjusted = now
        self.peer, self.send_window, self.packet = peer, window, min(packet, PACKET)
        if self._sock is None:
            self._send_close()
        else:
            self.resume_reading()

    def process_open_failure(self, _code: int, _reason: str, _lang: str) -> None:
        """The machine did not take it: nobody listens there."""
        if self._opened:
            raise ProtocolError("Channel not being opened")
        self._drop_socket()
        self._conn.remove_channel(self._number)

    def process_connection_close(self, _exc: Exception | None) -> None:
        """The ssh connection is gone."""
        self._drop_socket()
        self._conn.remove_channel(self._number)

    def close(self) -> None:
        """asyncssh disconnects: `process_connection_close` follows at once."""

    def log_received_packet(self, *_args: object) -> None:
        """Called by asyncssh's slow path for each packet; data is not logged."""

    def process_packet(self, kind: int, _seq: int, packet: SSHPacket) -> bool:
        """Take one packet on asyncssh's slow path: other ciphers, and what is rare."""
        match kind:
            case 94:  # data
                self.gather(memoryview(packet.get_string()))
                self.deliver()
            case 93:  # window adjust
                self.adjust(packet.get_uint32())
            case 96:  # end of data
                self.end_of_data()
            case 97:  # close
                self.close_received()
            case 98:  # request: there are none on such channels
                packet.get_string()
                if packet.get_boolean():
                    self._conn.send_packet(MSG_CHANNEL_FAILURE, UInt32(self.peer))
            case _:
                raise ProtocolError(f"Unexpected message {kind} on a forwarded connection")
        return True

    def gather(self, data: memoryview) -> bool:
        """Take data that `deliver` passes on; tell whether it is the first since then. Views must live until then."""
        self._granted -= len(data)
        if self._granted < 0 or self._eof_received or not self._opened:
            raise ProtocolError("Data that the window does not allow")
        if self._sock is None:
            return False  # the public side is gone, and the machine has not heard of it yet
        self._gathered.append(data)
        return len(self._gathered) == 1

    def deliver(self) -> None:
        """Pass on what was gathered; what the public side does not take now is kept, and counts against the window."""
        parts = self._gathered
        if not parts or self._sock is None:
            return
        self._gathered = []
        if self._pending:
            for part in parts:
                self._pending += part
            return
        if len(parts) > MOST_PARTS:
            parts = [memoryview(b"".join(parts))]
        try:
            sent = self._sock.send(parts[0]) if len(parts) == 1 else self._sock.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._public_side_failed()
            return
        self._conn.traffic.to_public += sent
        if sent < sum(map(len, parts)):
            self._keep(parts, sent)
        self._consume(sent)

    def adjust(self, size: int) -> None:
        """The machine takes `size` octets more."""
        if not self._opened or self.send_window + size > WINDOW_LIMIT:
            raise ProtocolError("Unexpected window adjustment")
        self.send_window += size
        if not self._reading and self._sock is not None and not self._eof_sent:
            self.resume_reading()

    def end_of_data(self) -> None:
        """The machine sends no more; the other direction goes on."""
        self.deliver()
        if self._eof_received or not self._opened:
            raise ProtocolError("Unexpected end of data")
        self._eof_received = True
        if not self._pending:
            self._half_close()

    def close_received(self) -> None:
        """The machine closed the channel: the last data goes out, then the socket is closed."""
        if not self._opened:
            raise ProtocolError("Channel not open")
        self.deliver()
        self._eof_received = True
        if not self._close_sent:
            self._send_close()
        self._conn.remove_channel(self._number)
        self._stop_reading()
        if self._pending:
            self._conn.loop.call_later(DRAIN_SECONDS, self._drop_socket)
        else:
            self._close_socket()

    # From the public side to the machine.

    def resume_reading(self) -> None:
        """Go on reading the public socket."""
        if self._sock is None or self._eof_sent or self._close_sent or self._reading:
            return
        self._reading = True
        self._conn.loop.add_reader(self._sock, self._readable)

    def _stop_reading(self) -> None:
        if self._reading and self._sock is not None:
            self._conn.loop.remove_reader(self._sock)
        self._reading = False

    def _readable(self) -> None:
        assert self._sock is not None
        if self._conn.write_blocked:
            self._stop_reading()
            self._conn.wake_later(self)
            return
        if not self.send_window:
            self._stop_reading()  # until `adjust`
            return
        try:
            size = self._conn.forward(self._sock, self)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._public_side_failed()
            return
        if size:
            self.send_window -= size
            return
        self._stop_reading()
        self._eof_sent = True
        self._conn.send_packet(MSG_CHANNEL_EOF, UInt32(self.peer))
        self._close_if_done()

    # From the machine to the public side.

    def _keep(self, parts: list[memoryview], sent: int) -> None:
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
            else:
                self._pending += part[sent:]
                sent = 0
        assert self._sock is not None
        self._conn.loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        assert self._sock is not None
        try:
            sent = self._sock.send(self._pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._public_side_failed()
            return
        del self._pending[:sent]
        self._conn.traffic.to_public += sent
        if not self._pending:
            self._conn.loop.remove_writer(self._sock)
            if self._eof_received:
                self._half_close()
        self._consume(sent)

    def _consume(self, size: int) -> None:
        self._consumed += size
        if self._consumed * 2 < self._window or self._eof_received or self._close_sent:
            return
        more = self._consumed
        now = self._conn.loop.time()
        machine_waits = now - self._adjusted < self._conn.round_trip and not self._pending
        if machine_waits and self._window < LARGEST_WINDOW and self._conn.take_window(self._window):
            more += self._window
            self._window *= 2
        self._consumed = 0
        self._adjusted = now
        self._granted += more
        self._conn.send_packet(MSG_CHANNEL_WINDOW_ADJUST, UInt32(self.peer) + UInt32(more))

    def _half_close(self) -> None:
        if self._sock is None:
            return
        if self._close_sent:  # both sides are done with the channel, and this was the last data
            self._close_socket()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._public_side_failed()
            return
        self._close_if_done()

    # The end.

    def _close_if_done(self) -> None:
        if self._eof_sent and self._eof_received and not self._pending and not self._close_sent:
            self._send_close()
            self._close_socket()

    def _public_side_failed(self) -> None:
        self._drop_socket()
        if self._opened and not self._close_sent:
            self._send_close()

    def _send_close(self) -> None:
        self._close_sent = True
        self._conn.send_packet(MSG_CHANNEL_CLOSE, UInt32(self.peer))

    def _drop_socket(self) -> None:
        if self._sock is not None:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._close_socket()

    def _close_socket(self) -> None:
        sock = self._sock
        if sock is None:
            return
        self._stop_reading()
        if self._pending:
            self._conn.loop.remove_writer(sock)
            self._pending.clear()
        self._gathered.clear()
        self._sock = None
        sock.close()
        self._conn.return_window(self._window - FIRST_WINDOW)
        self._closed()
