"""Plane (b): the same records over UDP, for lines on which TCP inside TCP would wait for what nobody needs any more.

What a flush finds in the outbox is cut into datagrams of one size, each encrypted by itself (`sealing.py`), and handed to the kernel
many at a time (UDP_SEGMENT); what arrives is likewise fetched many at a time (UDP_GRO) and put together (`bursts.py`). Nothing
is repeated: what is lost is the business of whoever sent it. What the socket does not take is dropped.

The passive end learns where its peer is from authentic datagrams, so an address that a NAT changes is followed. Probes of the two
sizes that a path may carry tell whether it is alive and which size to cut to.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Any

from fedkit.portal.errors import Violation
from fedkit.portal.health import Health
from fedkit.portal.outbox import Outbox
from fedkit.portal.planes.bursts import Bursts, Records
from fedkit.portal.planes.contract import Deliver, PlaneName, Traffic
from fedkit.portal.planes.sealing import OVERHEAD, Opened, Opener, Sealer, Secret
from fedkit.portal.sockets import bound

DATA, PROBE, ANSWER = 0, 1, 2
LARGE = 1500 - 40 - 8  # octets of UDP payload on an Ethernet path, IPv6 header counted
SMALL = 1280 - 40 - 8  # what any path carries (RFC 8200 §5)
PATIENCE = 1.0  # seconds for a probe to come back
TICK = 0.01  # seconds between two looks at bursts that miss something
TURNS = 16  # reads before others have a turn
MOST_AT_ONCE = 65000  # octets of one system call: an IP packet before it is cut
MOST_SEGMENTS = 64  # UDP_MAX_SEGMENTS of the kernels that have the fewest
BUFFERS = 4 * 1024 * 1024  # octets that the socket may hold, as far as the kernel lets us
KEPT_EPOCHS = 2
UDP_SEGMENT, UDP_GRO = 103, 104  # linux/udp.h
IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE = 10, 23, 3  # linux/in.h: never cut, and do as we say

_NUMBER = struct.Struct(">I")
_SEGMENT = struct.Struct("=H")
_COALESCED = struct.Struct("=i")
_incoming = memoryview(bytearray(65536))
_outgoing = memoryview(bytearray(MOST_AT_ONCE + LARGE))


def udp_socket(host: str, port: int) -> socket.socket:
    """A socket for this plane, bound there; raises `OSError`."""
    sock = bound(socket.SOCK_DGRAM, host, port)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFERS)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    except OSError:
        sock.close()
        raise
    return sock


class Datagrams:
    """One session's; `peer` is where to send, None until known."""

    name = PlaneName.DATAGRAMS
    superframes = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        peer: Any,
        deliver: Deliver,
        answered: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self.peer = peer
        self._deliver = deliver
        self._told_of_answer = answered
        self._outbox = Outbox()
        self._sealer: Sealer | None = None
        self._openers: dict[int, tuple[Opener, Bursts]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._paths = {LARGE: Health(PATIENCE), SMALL: Health(PATIENCE)}
        self.traffic = Traffic()
        loop.add_reader(sock, self._readable)

    # Keys.

    def send_with(self, secret: Secret) -> None:
        """Use this from now on; the peer has it."""
        self._sealer = Sealer(secret, self._loop.time())

    def receive_with(self, secret: Secret) -> None:
        """Take what comes with this, and with the one before."""
        self._openers[secret.epoch] = Opener(secret), Bursts()
        for epoch in list(self._openers)[:-KEPT_EPOCHS]:
            del self._openers[epoch]

    @property
    def needs_keys(self) -> bool:
        """Whether what is sent with is used up, or there is nothing yet."""
        return self._sealer is None or self._sealer.is_old(self._loop.time())

    # Sending.

    def room(self) -> memoryview | None:
        """See the contract."""
        return self._outbox.room()

    def commit(self, tag: int, size: int) -> None:
        """See the contract."""
        self._outbox.commit(tag, size)

    def flush(self) -> None:
        """See the contract."""
        while (packet := self._outbox.next()) is not None:
            if self._sealer is None or self.peer is None or not self._send_burst(self._sealer, packet.records):
                self.traffic.spoilt += 1
            else:
                self.traffic.sent += packet.fill
            self._outbox.done(packet)

    @property
    def _size(self) -> int:
        return LARGE if self._paths[LARGE].alive or not self._paths[SMALL].alive else SMALL

    def _send_burst(self, sealer: Sealer, data: memoryview) -> bool:
        whole = self._size
        step = whole - OVERHEAD
        count = -(-len(data) // step)
        most = min(MOST_AT_ONCE // whole, MOST_SEGMENTS)
        for first in range(0, count, most):
            used = 0
            for index in range(first, min(first + most, count)):
                piece = data[index * step : (index + 1) * step]
                used += sealer.seal_into(_outgoing[used:], DATA, index, count, piece)
            if not self._send(_outgoing[:used], whole):
                return False
        return True

    def _send(self, data: memoryview, size: int) -> bool:
        segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(size))] if len(data) > size else []
        try:
            self._sock.sendmsg([data], segment, 0, self.peer)
        except OSError:  # full; or no way to there: what probes will show
            return False
        return True

    # Receiving.

    def _readable(self) -> None:
        for _ in range(TURNS):
            try:
                size, said, _, peer = self._sock.recvmsg_into([_incoming], 64)
            except BlockingIOError:
                return
            except OSError:  # what ICMP told of something we sent
                continue
            step = _COALESCED.unpack_from(said[0][2])[0] if said and said[0][1] == UDP_GRO else size
            for start in range(0, size, step or 1):
                self._take(_incoming[start : min(start + step, size)], peer)

    def _take(self, datagram: memoryview, peer: Any) -> None:
        found = self._openers.get(datagram[0])
        if found is None:
            self.traffic.spoilt += 1
            return
        opener, bursts = found
        highest = opener.highest
        piece = opener.open(datagram)
        if piece is None:
            self.traffic.spoilt += 1
            return
        if opener.highest > highest and peer != self.peer:
            self.peer = peer
        if piece.kind == DATA:
            for records in bursts.add(piece):
                self._pass_on(records)
            if bursts.waiting and self._timer is None:
                self._timer = self._loop.call_later(TICK, self._tick)
        elif piece.kind == PROBE:
            self._answer(piece)
        elif piece.kind == ANSWER and len(piece.plain) >= _NUMBER.size:
            self._answered(piece)

    def _pass_on(self, records: Records) -> None:
        with contextlib.suppress(
            Violation
        ):  # authentic nonsense: the rest of the burst is lost, and the next may be better
            for tag, record in records:
                self.traffic.received += len(record)
                self._deliver(tag, record)

    def _tick(self) -> None:
        self._timer = None
        for _, bursts in self._openers.values():
            for records in bursts.tick():
                self._pass_on(records)
            if bursts.waiting and self._timer is None:
                self._timer = self._loop.call_later(TICK, self._tick)

    # Probes.

    def probe(self) -> None:
        """Ask whether the path carries datagrams of either size."""
        now = self._loop.time()
        for size, path in self._paths.items():
            number = path.probe(now)
            if self._sealer is not None and self.peer is not None:
                self._send_one(PROBE, _NUMBER.pack(number).ljust(size - OVERHEAD, b"\0"))

    def _answer(self, probe: Opened) -> None:
        self._send_one(ANSWER, probe.plain)

    def _answered(self, answer: Opened) -> None:
        path = self._paths.get(len(answer.plain) + OVERHEAD)
        if path is not None:
            path.answered(_NUMBER.unpack_from(answer.plain)[0], self._loop.time())
            self._told_of_answer()

    def _send_one(self, kind: int, plain: bytes) -> None:
        if self._sealer is not None and self.peer is not None and len(plain) <= LARGE - OVERHEAD:
            size = self._sealer.seal_into(_outgoing, kind, 0, 1, plain)
            self._send(_outgoing[:size], size)

    @property
    def health(self) -> Health:
        """Of the path, with datagrams as large as it carries."""
        return self._paths[self._size]

    @property
    def lost(self) -> int:
        """Datagrams that were missed."""
        return sum(bursts.lost for _, bursts in self._openers.values())

    def close(self) -> None:
        """Read no more; the socket is its owner's."""
        self._loop.remove_reader(self._sock)
        if self._timer is not None:
            self._timer.cancel()
