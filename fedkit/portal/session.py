"""One connection to a partner of ours: who it is, which planes there are, and which of them is used now.

    connects                                     waits
    channel frames@fedmesh ───────────────────►  accepted
    hello ────────────────────────────────────►  newest generation wins; an older connection ends
                               ◄──────────────── hello
    keys ─────────────► keyed  ◄──────── keys, keyed           datagrams, if both have them
    ping, probes, … every tick, at both ends; each end picks the plane by which it sends

Every `TICK` the owner calls `tick`. A session ends when its connection does, or when nothing at all has been answered for `DEAD`,
or nothing by ssh for `STALE`.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Any

import asyncssh

from fedkit.portal import messages
from fedkit.portal.channel import FRAMES, FrameChannel
from fedkit.portal.config import PortalConfig
from fedkit.portal.errors import Violation
from fedkit.portal.health import Health
from fedkit.portal.messages import Hello, Keyed, Keys, Message, Ping, Pong
from fedkit.portal.picker import Choice, Path, pick
from fedkit.portal.planes.contract import Plane, PlaneName
from fedkit.portal.planes.datagrams import Datagrams
from fedkit.portal.planes.sealing import EPOCHS, KEY, SALT, Secret
from fedkit.portal.planes.superframes import SuperFrames
from fedkit.portal.ssh import FrameConnection
from fedkit.portal.switch import Switch

TICK = 0.25  # seconds
DEAD = 3.0  # seconds without an answer; what the peer sends of itself tells nothing of the way there
STALE = 10.0  # seconds of silent ssh after which it is made anew, though datagrams still pass: keys travel by it
QUIET = 1.5  # seconds after which ssh is not sent by, if there is another way
PATIENCE = 3.0  # seconds for a ping
MEANINGFUL = 200  # packets of which the part sent again tells something

_TCP_INFO = struct.Struct("=100xI32xI")  # linux/tcp.h: total_retrans, segs_out


class Session:
    """`admitted` is asked with the partner's hello whether it may go on; `ended` is called once."""

    def __init__(
        self,
        config: PortalConfig,
        switch: Switch,
        conn: FrameConnection,
        udp: socket.socket | None,
        generation: int,
        admitted: Callable[[Session, Hello], bool],
        ended: Callable[[Session, str], None],
    ) -> None:
        self._config = config
        self._switch = switch
        self.conn = conn
        self._udp = udp
        self._loop = asyncio.get_running_loop()
        self._generation = generation
        self._admitted = admitted
        self._ended = ended
        self._pong = self._answer = self._loop.time()  # when ssh, and when anything at all was last known to be whole
        self._epoch = -1
        self._offered: Secret | None = None
        self._sent = self._again = 0.0
        self._counted: tuple[int, int] | None = None
        self._loss = 0.0
        self._over = False
        self.peer: Hello | None = None
        self.met: asyncio.Future[bool] = self._loop.create_future()  # False: the peer does not speak this
        self.choice = Choice()
        self.ping = Health(PATIENCE)
        self.stream = SuperFrames(conn, switch.deliver, self._told, self._opened, self._lost)
        self.datagrams: Datagrams | None = None

    # Beginning.

    def open(self) -> None:
        """Ask the peer for the channel."""
        self.stream.channel = FrameChannel(self.conn, FRAMES, self.stream)
        self.stream.channel.open()

    def _opened(self) -> None:
        if self._config.active:
            self._tell(self._hello())

    def _hello(self) -> Hello:
        udp = self._udp.getsockname()[1] if self._udp is not None else None
        return Hello(self._generation, self._switch.tags, self._switch.takes_uso, udp, self._config.forward)

    def _tell(self, message: Message) -> None:
        self.stream.tell(messages.encode(message))

    def _told(self, data: bytes) -> None:
        message = messages.decode(data)
        match message:
            case Hello():
                self._meet(message)
            case _ if self.peer is None:
                raise Violation("The first message is a hello")
            case Keys(secret):
                if self.datagrams is not None:
                    self.datagrams.receive_with(secret)
                    self._tell(Keyed(secret.epoch))
            case Keyed(epoch):
                self._keyed(epoch)
            case Ping(number):
                self._tell(Pong(number))
            case Pong(number):
                self._pong = self._loop.time()
                self.ping.answered(number, self._pong)

    def _meet(self, hello: Hello) -> None:
        if self.peer is not None:
            raise Violation("A second hello")
        if not self._admitted(self, hello):
            raise Violation("A newer connection is there")
        self.peer = hello
        if not self._config.active:
            self._tell(self._hello())
        if self._udp is not None and hello.udp is not None:
            address = (self.conn.get_extra_info("peername")[0], hello.udp) if self._config.active else None
            self.datagrams = Datagrams(self._loop, self._udp, address, self._switch.deliver, self._datagram_answered)
        if not self.met.done():
            self.met.set_result(True)
        self.tick()

    # Going on.

    def _datagram_answered(self) -> None:
        self._answer = self._loop.time()

    def tick(self) -> None:
        """Ask, look, choose."""
        now = self._loop.time()
        silent, silent_ssh = now - max(self._answer, self._pong), now - self._pong
        if silent_ssh > STALE or (silent > DEAD and self.peer is not None):
            self.conn.abort()
            return
        if self.peer is None:
            return
        self._tell(Ping(self.ping.probe(self._loop.time())))
        if self.datagrams is not None:
            self._offer_keys(self.datagrams)
            self.datagrams.probe()
        self._measure()
        self._choose(self.peer)

    def _offer_keys(self, datagrams: Datagrams) -> None:
        if datagrams.needs_keys and self._offered is None:
            self._epoch = (self._epoch + 1) % EPOCHS
            self._offered = Secret(self._epoch, secrets.token_bytes(KEY), secrets.token_bytes(SALT))
            self._tell(Keys(self._offered))

    def _keyed(self, epoch: int) -> None:
        if self.datagrams is not None and self._offered is not None and epoch == self._offered.epoch:
            self.datagrams.send_with(self._offered)
            self._offered = None

    def _measure(self) -> None:
        """Learn from the kernel how much of what ssh sends it sends again."""
        sock: Any = self.conn.get_extra_info("socket")
        if sock is None:
            return
        try:
            again, sent = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
        except (OSError, struct.error):  # closed meanwhile, or an older kernel
            return
        if self._counted is not None:
            self._again = self._again * 0.9 + (again - self._counted[0])
            self._sent = self._sent * 0.9 + (sent - self._counted[1])
            if self._sent >= MEANINGFUL:
                self._loss = self._again / self._sent
        self._counted = again, sent

    @property
    def paths(self) -> dict[PlaneName, Path]:
        """What is known of each plane that may be used."""
        quiet = self._loop.time() - self._pong
        paths = {PlaneName.SUPERFRAMES: Path(quiet < QUIET, self.ping.delay, self._loss)}
        if self.datagrams is not None:
            health = self.datagrams.health
            paths[PlaneName.DATAGRAMS] = Path(health.alive, health.delay, health.loss)
        return {name: path for name, path in paths.items() if name in self._config.planes}

    def _choose(self, peer: Hello) -> None:
        name = pick(self.choice, self.paths, self._loop.time())
        planes: dict[PlaneName | None, Plane | None] = {
            PlaneName.SUPERFRAMES: self.stream,
            PlaneName.DATAGRAMS: self.datagrams,
        }
        for tag in set(peer.tags) & set(self._switch.tags):
            self._switch.use(tag, planes.get(name), peer.uso)

    # Ending.

    @property
    def planes(self) -> list[Plane]:
        """Those of this session."""
        return [self.stream, *([self.datagrams] if self.datagrams is not None else [])]

    def _lost(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._switch.leave(self.planes)
        if self.datagrams is not None:
            self.datagrams.close()
            self.datagrams = None
        if not self.met.done():
            self.met.set_result(False)
        self._ended(self, reason)

    def close(self, reason: str) -> None:
        """End it: a newer one is there, or the portal stops. What it held is free when this returns."""
        self._lost(reason)
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, reason)
