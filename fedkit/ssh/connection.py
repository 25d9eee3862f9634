"""An ssh connection of asyncssh, mended and tuned; the tunnel server's and the portals' are made of it.

asyncssh does the protocol: versions, key exchange, login, requests. Once somebody is logged in with an AES-GCM cipher, packets
that we make ourselves take a short way (`fedkit/ssh/packets.py`), and whoever inherits may take received ones likewise, as long
as `takes_short_way` says that asyncssh stands between two packets.

Mended: stock asyncssh 2.24.1 ignores `pause_writing`, so that a peer who announces a large window and reads nothing makes it
buffer without bound; here `write_blocked` tells, and a peer who makes us answer without reading the answers is cut.
Tuned: no empty MSG_IGNORE before every packet (a defence of CBC ciphers, useless for GCM), no key schedule for every packet,
packets of one loop turn sent together, no timer for every read.

All this leans on internals, so it is used with exactly one version of asyncssh (`TUNED_FOR`).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, ClassVar, cast

import asyncssh
from asyncssh.connection import SSHConnection
from asyncssh.encryption import GCMEncryption

from fedkit.ssh.packets import GcmPackets, adopt

TUNED_FOR = "2.24.1"
GCM_CIPHERS = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
MSG_DEBUG, MSG_SERVICE_REQUEST, MSG_SERVICE_ACCEPT, MSG_NEWKEYS = 4, 5, 6, 21
MSG_KEX_LAST, MSG_USERAUTH_BANNER, MSG_USERAUTH_LAST = 49, 53, 79
MOST_UNSENT = 4 * 1024 * 1024  # only answers to a peer that does not read them can grow so far
TAKES_VIEWS = sys.version_info < (3, 12)  # later transports keep a view of unsent data instead of a copy


class MendedConnection(SSHConnection, asyncio.BufferedProtocol):
    """Either end; inherit from this before asyncssh's own client or server connection."""

    WRITE_LIMITS: ClassVar[tuple[int, int]] = (256 * 1024, 64 * 1024)  # unsent octets: blocked above, free again below

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.write_blocked = False
        self.loop = self._loop
        self._outgoing: list[bytes] = []
        self._heard = self._loop.time()

    @property
    def silent_seconds(self) -> float:
        """How long nothing has been heard of the peer."""
        return self.loop.time() - self._heard

    def writable(self) -> None:
        """Called when the socket takes data again."""

    # Back-pressure.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody is at the other end."""
        high, low = self.WRITE_LIMITS
        cast(asyncio.Transport, transport).set_write_buffer_limits(high, low)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """The socket is full."""
        self.write_blocked = True

    def resume_writing(self) -> None:
        """The socket takes data again."""
        self.write_blocked = not self._kex_complete
        self._wake()

    def _wake(self) -> None:
        if not self.write_blocked:
            self.writable()

    def _send_kexinit(self) -> None:
        # What was read during a key exchange would have to be kept: whoever sends much waits instead.
        self.write_blocked = True
        super()._send_kexinit()

    def _send_deferred_packets(self) -> None:
        super()._send_deferred_packets()
        if self._kex_complete and self._transport is not None:
            self.write_blocked = self._transport.get_write_buffer_size() > self.WRITE_LIMITS[0]
            self._wake()

    # Sending.

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """Send a packet; as asyncssh does, but for GCM without the packet that it sends before each."""
        cipher: Any = self._send_encryption
        if type(cipher) is GCMEncryption:
            cipher = adopt(cipher)
            self._send_encryption = cipher
        if type(cipher) is not GcmPackets:
            super().send_packet(pkttype, *args, handler=handler)
            return
        if self._kex_complete and self._auth_complete and self._rekey_is_due():
            self.start_key_exchange()
        if self._must_wait(pkttype):
            self._deferred_packets.append((pkttype, args))
            return
        packet = cipher.seal(b"%c%b" % (pkttype, b"".join(args)))
        self._send(packet)
        fresh = pkttype == MSG_NEWKEYS and self._strict_kex
        self._send_seq = 0 if fresh else (self._send_seq + 1) & 0xFFFFFFFF
        if self._kex_complete:
            self._rekey_bytes_sent += len(packet)

    def start_key_exchange(self) -> None:
        """Agree on new keys."""
        self._send_kexinit()
        self._kexinit_sent = True

    def _rekey_is_due(self) -> bool:
        return self._rekey_bytes_sent >= self._rekey_bytes or self._heard >= self._rekey_time

    def _must_wait(self, kind: int) -> bool:
        """Whether a packet may not be sent in this phase (RFC 4253 §7.1, RFC 4252)."""
        if self._kex_complete and self._auth_complete:
            return False
        return (
            (
                not self._kex_complete
                and (kind > MSG_KEX_LAST or kind in (MSG_DEBUG, MSG_SERVICE_REQUEST, MSG_SERVICE_ACCEPT))
            )
            or (kind == MSG_USERAUTH_BANNER and not (self._auth_in_progress or self._auth_complete))
            or (kind > MSG_USERAUTH_LAST and not self._auth_complete)
        )

    def _send(self, data: bytes) -> None:
        if not self._outgoing:
            self.loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _flush(self) -> None:
        if self._outgoing:
            data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
            self._outgoing.clear()
            self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is None:
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MOST_UNSENT:
            self._force_close(asyncssh.ConnectionLost("The peer does not read what it asked for"))

    def _force_close(self, exc: Exception | None) -> None:
        self._flush()  # the reason that a disconnect message gives
        super()._force_close(exc)

    # Receiving.

    def takes_short_way(self) -> bool:
        """Whether asyncssh is between two packets of a logged in GCM connection; it is put there if it only has a header."""
        if not self._auth_complete or self._transport is None:
            return False
        cipher: Any = self._recv_encryption
        if type(cipher) is not GcmPackets:
            if type(cipher) is not GCMEncryption:
                return False
            self._recv_encryption = adopt(cipher)  # type: ignore[assignment]
        if self._recv_handler == self._recv_packet:
            self._inpbuf = self._packet + self._inpbuf
            self._packet = b""
            self._recv_handler = self._recv_pkthdr
        return bool(self._recv_handler == self._recv_pkthdr)

    # Keepalive: a note of the time for each read instead of a new timer.

    def set_keepalive(self, interval: float | str | None = None, count_max: int | None = None) -> None:
        """Ask the peer after so much silence, from now on."""
        super().set_keepalive(interval, count_max)
        if self._auth_complete:
            self._cancel_keepalive_timer()
            self._set_keepalive_timer()

    def _reset_keepalive_timer(self) -> None:
        self._heard = self.loop.time()

    def _keepalive_timer_callback(self) -> None:
        quiet = self._keepalive_interval - self.silent_seconds
        if quiet > 0:
            self._keepalive_count = 0
            self._keepalive_timer = self.loop.call_later(quiet, self._keepalive_timer_callback)
        else:
            super()._keepalive_timer_callback()
