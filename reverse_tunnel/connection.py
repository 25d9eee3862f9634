"""asyncssh's server connection, mended and tuned for carrying octets.

asyncssh does the protocol: versions, key exchange, login, requests. Once a machine is logged in, the packets that make up nearly
all traffic take a short way, and everything else goes to asyncssh unchanged:

    read 128 KiB ─► decrypt each packet in place ─┬─ channel data, window, end ─► PortChannel ─► one send for each channel
                                                   └─ anything else: the untouched packet ─► asyncssh's own state machine
    PortChannel reads a public socket ─► encrypt four packets ─► one send        packets of one loop turn are sent together

Most of what is mended and tuned stands in `fedkit/ssh/connection.py`. Of the flaws of stock asyncssh 2.24.1, here besides:
 * public sockets are not read while the ssh socket is full;
 * `listen(window=…)` does not reach forwarded channels; here `PortChannel` keeps its own, growing window;
 * its tap reader goes deaf when a tap is reopened (the file is closed before its reader is removed). No tap can be opened here.

All this leans on internals, so it is used with exactly one version of asyncssh (`TUNED_FOR`); `server.py` takes the stock
class with any other.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import asyncssh
from asyncssh.misc import DisconnectError
from asyncssh.packet import SSHPacket, UInt32
from cryptography.exceptions import InvalidTag

from fedkit.ssh.connection import TAKES_VIEWS, MendedConnection
from fedkit.ssh.packets import BLOCK, LENGTH, TAG, GcmPackets
from reverse_tunnel.channel import (
    MSG_CHANNEL_CLOSE,
    MSG_CHANNEL_DATA,
    MSG_CHANNEL_EOF,
    MSG_CHANNEL_WINDOW_ADJUST,
    PortChannel,
)
from reverse_tunnel.packets import Outlet
from reverse_tunnel.traffic import Traffic

# Dropbear has no GCM. Every OpenSSH client prefers this one to GCM, so that it is offered to Dropbear alone.
DROPBEAR_CIPHER = "chacha20-poly1305@openssh.com"

MSG_GLOBAL_REQUEST, MSG_CHANNEL_OPEN_CONFIRMATION = 80, 91

READ = (
    128 * 1024
)  # octets asked of the kernel at once; more would not stay in the processor's cache until they are sent on
LARGEST_PACKET = 256 * 1024 + 4096  # above what asyncssh accepts (`_max_recv_pktlen`)
MOST_REQUESTS = 64  # unanswered global requests
JOINED = 16 * 1024  # up to here packets wait for the others of the same loop turn
WINDOW_BUDGET = 16 * 1024 * 1024  # octets by which the windows of one connection may grow, together

# Shared by all connections: filled and emptied within one callback of the event loop.
_received = memoryview(bytearray(LARGEST_PACKET + READ))
_plain = memoryview(bytearray(LARGEST_PACKET + READ))
_outlet = Outlet()

_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(">BBII")  # padding length, message, channel, octets of data or window
_CONFIRMATION = struct.Struct(">II")  # window, largest packet


class TunedConnection(MendedConnection, asyncssh.SSHServerConnection):
    """One machine's ssh connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        options: asyncssh.SSHServerConnectionOptions,
        traffic: Traffic,
        channels: int,
    ) -> None:
        super().__init__(loop, options)
        self.traffic = traffic
        self.round_trip = math.inf  # seconds: the shortest time in which the machine has confirmed a channel
        self._most_channels = channels
        self._window_budget = WINDOW_BUDGET
        self._waiting: dict[PortChannel, None] = {}
        self._short_way = False

    @property
    def pending_requests(self) -> int:
        """Global requests that wait for their turn, not counting the one being answered."""
        return max(0, len(self._global_request_queue) - 1)

    # Channels.

    def open_port_channel(
        self, sock: socket.socket, told: tuple[str, int], origin: tuple[str, int], closed: Callable[[], None]
    ) -> bool:
        """Offer a public connection to the machine; False if it has too many or is gone. Calls `closed` once it has ended."""
        if len(self._channels) >= self._most_channels or not self._transport:
            return False
        PortChannel(self, sock, closed).open(*told, origin)
        return True

    def take_window(self, size: int) -> bool:
        """Take `size` octets of the budget by which windows grow."""
        if size > self._window_budget:
            return False
        self._window_budget -= size
        return True

    def return_window(self, size: int) -> None:
        """Give back what a channel took."""
        self._window_budget += size

    def wake_later(self, channel: PortChannel) -> None:
        """Let the channel go on reading once the ssh socket takes data again."""
        self._waiting[channel] = None

    def forward(self, sock: socket.socket, channel: PortChannel) -> int:
        """Read a public socket and send what came as channel data; return its octets, 0 at the end. Raises OSError."""
        size = _outlet.read(sock, channel.send_window, channel.packet)
        if not size:
            return 0
        self.traffic.to_machine += size
        cipher: Any = self._send_encryption
        if type(cipher) is GcmPackets and self._kex_complete and not self._rekey_is_due():
            sealed = _outlet.seal(cipher, channel.peer, size, channel.packet)
            self._rekey_bytes_sent += len(sealed)
            self._send_seq = (self._send_seq + -(-size // channel.packet)) & 0xFFFFFFFF
            if len(sealed) <= JOINED:
                self._send(bytes(sealed))
            else:
                self._flush()
                self._write(sealed if TAKES_VIEWS else bytes(sealed))
            return size
        for piece in _outlet.pieces(size, channel.packet):
            self.send_packet(MSG_CHANNEL_DATA, UInt32(channel.peer) + UInt32(len(piece)) + bytes(piece))
        return size

    # Back-pressure, and sending.

    def writable(self) -> None:
        """The ssh socket takes data again: public sockets are read again."""
        waiting, self._waiting = self._waiting, {}
        for channel in waiting:
            channel.resume_reading()

    def _send_kexinit(self) -> None:
        if not self._session_id and b"dropbear" in self._client_version:
            self._enc_algs = [*self._enc_algs, DROPBEAR_CIPHER.encode()]
        super()._send_kexinit()

    # Receiving.

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next octets go: behind the packet that is not complete yet."""
        self._short_way = self.takes_short_way()
        rest = len(self._inpbuf) if self._short_way else 0
        if rest:
            _received[:rest] = self._inpbuf
        return _received[rest : rest + READ]

    def buffer_updated(self, size: int) -> None:
        """`size` octets came."""
        if not self._short_way:
            self.data_received(bytes(_received[:size]))
            return
        end = len(self._inpbuf) + size
        self._inpbuf = b""
        self._auth_final = True
        self._heard = self.loop.time()
        touched: list[PortChannel] = []
        try:
            start = self._take_packets(end, touched)
        except DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
            return
        except Exception:
            self.internal_error()
            return
        finally:
            for channel in touched:
                channel.deliver()
        if self._transport is None:
            return
        if self.takes_short_way():
            self._inpbuf = bytes(_received[start:end])
        elif start < end:
            self.data_received(bytes(_received[start:end]))

    def _take_packets(self, end: int, touched: list[PortChannel]) -> int:
        """Take the packets in the receive buffer up to `end`; return where the first one begins that was not taken."""
        start = used = 0
        cipher = cast(GcmPackets, self._recv_encryption)
        while end - start >= LENGTH + BLOCK + TAG:
            size: int = _LENGTH.unpack_from(_received, start)[0]
            if not BLOCK <= size <= self._max_recv_pktlen:
                raise asyncssh.ProtocolError("Bad packet length")
            behind = start + LENGTH + size + TAG
            if behind > end:
                break
            packet = _plain[used : used + size]
            try:
                cipher.open_into(_received[start : start + LENGTH], _received[start + LENGTH : behind], packet)
            except InvalidTag:
                raise asyncssh.MACError("MAC verification failed") from None
            padding, kind, number, value = _HEAD.unpack_from(packet)
            channel: Any = self._channels.get(number)
            if kind == MSG_CHANNEL_DATA and type(channel) is PortChannel:
                if _HEAD.size + value + padding != size:
                    raise asyncssh.ProtocolError("Bad length of channel data")
                if channel.gather(packet[_HEAD.size : _HEAD.size + value]):
                    touched.append(channel)
            elif type(channel) is not PortChannel or not _take(channel, kind, value, packet[10 : size - padding]):
                cipher.step_back()
                self._inpbuf = bytes(_received[start:behind])
                self._recv_data()
                if not self.takes_short_way():
                    return behind
                cipher = cast(GcmPackets, self._recv_encryption)
                start = behind
                continue
            self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF
            used += size
            start = behind
        return start

    # Requests.

    def _process_global_request_bounded(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        if len(self._global_request_queue) >= MOST_REQUESTS:
            raise asyncssh.ProtocolError("Too many requests without waiting for an answer")
        self._process_global_request(pkttype, pktid, packet)

    _packet_handlers = {  # noqa: RUF012 - asyncssh's table, and like that one never changed
        **asyncssh.SSHServerConnection._packet_handlers,
        MSG_GLOBAL_REQUEST: _process_global_request_bounded,
    }

    # Login.

    async def reload_config(self) -> None:
        """No file has options that depend on the user: the ones of the listener hold."""

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """Check a key; once its owner has proved to have it, say what it may do."""
        valid = await super().validate_public_key(username, key_data, msg, signature)
        if valid and msg:
            self.send_auth_banner(cast(Any, self._owner).greeting())
        return valid


def _take(channel: PortChannel, kind: int, value: int, rest: memoryview) -> bool:
    """Give a channel a packet without data; False leaves it to asyncssh, which knows more kinds and checks more."""
    if kind == MSG_CHANNEL_WINDOW_ADJUST:
        channel.adjust(value)
    elif kind == MSG_CHANNEL_EOF:
        channel.end_of_data()
    elif kind == MSG_CHANNEL_CLOSE:
        channel.close_received()
    elif kind == MSG_CHANNEL_OPEN_CONFIRMATION and len(rest) == 8:
        window, largest = _CONFIRMATION.unpack(rest)
        if not largest:
            raise asyncssh.ProtocolError("Invalid maximum packet size")
        channel.process_open_confirmation(value, window, largest, SSHPacket(b""))
    else:
        return False
    return True
