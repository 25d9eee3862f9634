"""The two ends of a portal's ssh connection: asyncssh, mended (`fedkit/ssh/connection.py`), with a short way for frames.

    read what is there ─► decrypt a packet ─┬─ data of a FrameChannel ─► its owner ─► taps
                                            └─ anything else: the untouched packet ─► asyncssh's own state machine
    a full buffer of records ─► `seal` in place ─► `push`: one write for all that was sealed

The socket is told to keep little that is not on its way (TCP_NOTSENT_LOWAT), and to measure the line instead of filling it until
it loses (BBR), where the kernel has it: both are what keeps a tunnel's own queue from being everybody's delay.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any, ClassVar, cast

import asyncssh
from asyncssh.misc import DisconnectError
from asyncssh.packet import SSHPacket
from cryptography.exceptions import InvalidTag

from fedkit.portal.channel import ETHERNET_MODE, ETHERNET_TUNNEL, FRAMES, MSG_CHANNEL_DATA, FrameChannel, Frames
from fedkit.portal.errors import Violation, WrongLibrary
from fedkit.portal.outbox import PACKET
from fedkit.portal.sockets import BACKLOG, connected, listening
from fedkit.ssh.connection import GCM_CIPHERS, TAKES_VIEWS, TUNED_FOR, MendedConnection
from fedkit.ssh.packets import BLOCK, LENGTH, PADDING, TAG, GcmPackets, padding_for

USER = "root"  # whom OpenSSH's ssh -w needs, and whom our portals ignore
VERSION = "fedmesh-portal"
KEY_EXCHANGES = ["mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256"]
NOT_SENT = 128 * 1024  # octets that the kernel may keep of what it has not sent yet
REKEY_BYTES = 64 * 2**30  # GCM stays safe for longer (RFC 5647 §8)
LOGIN_SECONDS = 10.0
LARGEST_PACKET = PACKET + 4096
READ = 256 * 1024
TCP_NOTSENT_LOWAT = 25  # linux/tcp.h

_LENGTH = struct.Struct(">I")
_HEAD = struct.Struct(">BBII")  # padding length, message, channel, octets of data
_early = memoryview(bytearray(16 * 1024))  # for who has not logged in; emptied within the callback that fills it


class FrameConnection(MendedConnection):
    """Either end."""

    WRITE_LIMITS: ClassVar[tuple[int, int]] = (64 * 1024, 0)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._buffer = memoryview(b"")
        self._plain = memoryview(b"")
        self._start = self._end = 0
        self._short = False
        self._sealed = memoryview(bytearray(0))
        self._used = 0
        self.congestion = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Tell the socket what this connection is for."""
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, NOT_SENT)
        with contextlib.suppress(OSError):  # the kernel has none, or does not let us: whatever there is
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        self.congestion = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).split(b"\0")[0].decode()
        super().connection_made(transport)

    def writable(self) -> None:
        """Frames may be sent again."""
        for channel in list(self._channels.values()):
            if isinstance(channel, FrameChannel):
                channel.writable()

    # Sending.

    @property
    def ready(self) -> bool:
        """Whether frames may be sent now."""
        if self.write_blocked or not self._kex_complete or not isinstance(self._send_encryption, GcmPackets):
            return False
        if self._rekey_is_due():
            self.start_key_exchange()
            return False
        return True

    def seal(self, channel: FrameChannel, view: memoryview, start: int, size: int) -> None:
        """Encrypt view[start:start + size] as data of a channel; the ten octets before and twenty behind are lost."""
        if self._used == 0:
            self._flush()  # what was made before goes first
        begin = start - _HEAD.size
        padding = padding_for(_HEAD.size - 1 + size)
        _HEAD.pack_into(view, begin, padding, MSG_CHANNEL_DATA, channel.peer, size)
        behind = start + size + padding
        view[start + size : behind] = PADDING[:padding]
        if not self._sealed:
            self._sealed = memoryview(bytearray(2 * LARGEST_PACKET))
        cipher = cast(GcmPackets, self._send_encryption)
        sealed = cipher.seal_into(view[begin:behind], self._sealed[self._used :])
        self._used += sealed
        self._rekey_bytes_sent += sealed
        self._send_seq = (self._send_seq + 1) & 0xFFFFFFFF
        channel.count(size)
        if self._used > LARGEST_PACKET - 64:
            self.push()

    def push(self) -> None:
        """Send what was sealed."""
        if self._used:
            sealed = self._sealed[: self._used]
            self._used = 0
            self._write(sealed if TAKES_VIEWS else bytes(sealed))

    # Receiving.

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Where the next octets go."""
        self._short = self.takes_short_way()
        if not self._short:
            return _early
        if not self._buffer:
            self._buffer = memoryview(bytearray(LARGEST_PACKET + READ))
            self._plain = memoryview(bytearray(LARGEST_PACKET))
        rest = len(self._inpbuf)
        if rest:  # asyncssh left it; what it leaves fits, because it is less than a packet
            self._buffer[:rest] = self._inpbuf
            self._start, self._end, self._inpbuf = 0, rest, b""
        elif len(self._buffer) - self._end < READ // 2:
            rest = self._end - self._start
            self._buffer[:rest] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, rest
        return self._buffer[self._end :]

    def buffer_updated(self, size: int) -> None:
        """`size` octets came."""
        if not self._short:
            self.data_received(bytes(_early[:size]))
            return
        self._end += size
        self._auth_final = True
        self._heard = self.loop.time()
        try:
            self._take_packets()
        except DisconnectError as error:
            self._send_disconnect(error.code, error.reason, error.lang)
            self._force_close(error)
            return
        except Violation as violation:
            self.disconnect(asyncssh.DISC_PROTOCOL_ERROR, violation.message)
            return
        except Exception:
            self.internal_error()
            return
        if self._start == self._end:
            self._start = self._end = 0
        elif self._transport is not None and not self.takes_short_way():
            rest = bytes(self._buffer[self._start : self._end])
            self._start = self._end = 0
            self.data_received(rest)

    def _take_packets(self) -> None:
        cipher = cast(GcmPackets, self._recv_encryption)
        buffer, plain = self._buffer, self._plain
        while self._end - self._start >= LENGTH + BLOCK + TAG:
            start = self._start
            size: int = _LENGTH.unpack_from(buffer, start)[0]
            if not BLOCK <= size <= len(plain):
                raise asyncssh.ProtocolError("Bad packet length")
            behind = start + LENGTH + size + TAG
            if behind > self._end:
                return
            try:
                cipher.open_into(buffer[start : start + LENGTH], buffer[start + LENGTH : behind], plain[:size])
            except InvalidTag:
                raise asyncssh.MACError("MAC verification failed") from None
            self._start = behind
            padding, kind, number, value = _HEAD.unpack_from(plain)
            channel: Any = self._channels.get(number)
            if kind == MSG_CHANNEL_DATA and type(channel) is FrameChannel:
                if _HEAD.size + value + padding != size:
                    raise asyncssh.ProtocolError("Bad length of channel data")
                self._recv_seq = (self._recv_seq + 1) & 0xFFFFFFFF
                channel.data(plain[_HEAD.size : _HEAD.size + value])
                continue
            cipher.step_back()
            self._inpbuf = bytes(buffer[start:behind])
            self._recv_data()
            if not self.takes_short_way():
                return
            cipher = cast(GcmPackets, self._recv_encryption)


class ClientConnection(FrameConnection, asyncssh.SSHClientConnection):
    """The end that connects."""


class ServerConnection(FrameConnection, asyncssh.SSHServerConnection):
    """The end that waits."""

    async def reload_config(self) -> None:
        """No file has options that depend on the user."""

    def _process_frames_at_fedmesh_open(self, packet: SSHPacket) -> tuple[FrameChannel, None]:
        packet.check_end()
        return self._accept(FRAMES, cast(Any, self._owner).frames_requested())

    def _process_tun_at_openssh_dot_com_open(  # type: ignore[override]
        self, packet: SSHPacket
    ) -> tuple[FrameChannel, None]:
        mode, unit = packet.get_uint32(), packet.get_uint32()
        packet.check_end()
        if mode != ETHERNET_MODE:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "Ethernet only")
        return self._accept(ETHERNET_TUNNEL, cast(Any, self._owner).tunnel_requested(unit))

    def _accept(self, kind: str, owner: Frames) -> tuple[FrameChannel, None]:
        owner.channel = FrameChannel(self, kind, owner)
        return owner.channel, None


def check_library() -> None:
    """Raise `WrongLibrary` with any asyncssh but the one whose inside this leans on."""
    if asyncssh.__version__ != TUNED_FOR:
        raise WrongLibrary(f"This is asyncssh {asyncssh.__version__}; a portal needs {TUNED_FOR}.")


def algorithms() -> dict[str, Any]:
    """Options of both ends."""
    known = {name.decode() for name in asyncssh.kex.get_kex_algs()}
    return {
        "kex_algs": [name for name in KEY_EXCHANGES if name in known],
        "encryption_algs": GCM_CIPHERS,
        "compression_algs": None,
        "login_timeout": LOGIN_SECONDS,
        "rekey_bytes": REKEY_BYTES,
        "gss_host": None,
    }


async def connect(
    host: str,
    port: int,
    local: str | None,
    host_key: asyncssh.SSHKey,
    key: asyncssh.SSHKey,
    client: Callable[[], asyncssh.SSHClient],
) -> ClientConnection:
    """Log in at `host`, whose key is pinned; raises `OSError` and `asyncssh.Error`."""
    loop = asyncio.get_running_loop()
    options = await asyncssh.SSHClientConnectionOptions.construct(
        client_factory=client,
        known_hosts=([host_key], [], []),
        client_keys=[key],
        username=USER,
        config=None,
        agent_path=None,
        host=host,
        port=port,
        client_version=VERSION,
        preferred_auth=("publickey",),
        **algorithms(),
    )
    options.waiter = loop.create_future()
    where = {"host": host, "port": port} if local is None else {"sock": await connected(local, host, port)}
    _, conn = await loop.create_connection(lambda: ClientConnection(loop, options, wait="auth"), **where)
    conn.set_extra_info(host=host, port=port)
    try:
        await options.waiter
    except BaseException:
        conn.abort()
        raise
    return conn


async def listen(
    host: str, port: int, host_key: asyncssh.SSHKey, server: Callable[[], asyncssh.SSHServer]
) -> asyncio.Server:
    """Wait for the peer there."""
    loop = asyncio.get_running_loop()
    options = await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=server, server_host_keys=[host_key], server_version=VERSION, config=None, password_auth=False,
        kbdint_auth=False, host_based_auth=False, allow_pty=False, allow_scp=False, agent_forwarding=False,
        **algorithms(),
    )  # fmt: skip
    return await loop.create_server(
        lambda: ServerConnection(loop, options), sock=listening(host, port), backlog=BACKLOG
    )
