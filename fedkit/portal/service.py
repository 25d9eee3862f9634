"""A portal's life: make the crossings, be joined for ever, put everything back.

    connects    dial each `peer` in turn ─► Session, or ClassicSession where the peer is plain OpenSSH ─► again when it ends
    waits       listen, itself or at a relay ─► Gate ─► the newest Session, or ClassicSessions
    both        every TICK: sessions look at their paths, the status file is written

Stopping leaves the machine as it was before the portal ran. A killed portal leaves bridges and taps; the next takes them over.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import asyncssh

from fedkit.portal import network, ssh
from fedkit.portal.classic_session import ClassicSession
from fedkit.portal.config import CrossingConfig, PortalConfig
from fedkit.portal.crossing import Crossing
from fedkit.portal.errors import NoTap, NotReached, UnusableConfig
from fedkit.portal.gate import Gate, same_address
from fedkit.portal.journal import Journal
from fedkit.portal.line import share
from fedkit.portal.loops import ID, LoopGuard
from fedkit.portal.messages import Hello, endpoint
from fedkit.portal.planes.contract import PlaneName
from fedkit.portal.planes.datagrams import udp_socket
from fedkit.portal.relay import keep_relayed
from fedkit.portal.session import TICK, Session
from fedkit.portal.status import StatusFile
from fedkit.portal.switch import Switch
from fedkit.portal.tap import Tap

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0  # seconds between two attempts to connect
ATTEMPT = 5.0  # seconds for one
NAMES = 60.0  # seconds after which the partner's names are looked up again
LOOPBACK = "127.0.0.1"

AnySession = Session | ClassicSession


class Ground(Protocol):
    """What a portal stands on: the machine's own network (network.py), or a tap that is there already (fedkit/desktop)."""

    def make(self, crossings: Iterable[CrossingConfig], journal: Journal) -> dict[int, Tap]:
        """The tap of each tag."""

    def undo(self, journal: Journal) -> None:
        """Put everything back."""


class Portal:
    """Runs while its context is open."""

    def __init__(
        self, config: PortalConfig, chance: Callable[[], float] = random.random, ground: Ground = network
    ) -> None:
        self.config = config
        self._chance = chance
        self._ground = ground
        self.key = _private_key(config, "ssh_privkey")
        self.peer_key = _public_key(config, "ssh_pubkey")
        self.host_key = _public_key(config, "host_key") if config.active else _private_key(config, "host_key")
        self._room = share(sum(bool(way) for one in config.crossing for way in (one.out, one.back)))
        self._journal = Journal(config.state / "journal.json")
        self._status = StatusFile(config.state / "status.json")
        self.strangers: list[Gate] = []  # connections that have not logged in, in the order in which they came
        self.partners = 0  # those that have
        self.switch = Switch([])
        self.sessions: list[AnySession] = []
        self.own: Session | None = None
        self.port = config.port
        self.why = "not joined yet"  # the last thing that went wrong
        self._admitted: set[str] = set()
        self._udp: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._main: list[asyncio.Task[None]] = []
        self._stopping = False

    # Life.

    async def __aenter__(self) -> Portal:
        ssh.check_library()
        loop = asyncio.get_running_loop()
        try:
            taps = self._ground.make(self.config.crossing, self._journal)
            self.switch = Switch(
                Crossing(loop, one, taps[one.tag], self._guard(), self._chance, self._room)
                for one in self.config.crossing
            )
            if not self.config.active:
                await self._listen()
            if PlaneName.DATAGRAMS in self.config.planes:
                self._udp = self._open_udp()
        except BaseException:
            self._put_back()
            raise
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._main.append(self._tasks.create_task(self._keep_looking()))
        if self.config.active:
            self._main.append(self._tasks.create_task(self._dial()))
        elif self.config.relay is not None:
            relayed = keep_relayed(self.config.relay, self.port, self._note, self._pause)
            self._main.append(self._tasks.create_task(relayed))
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._stopping = True
        assert self._tasks is not None
        for session in list(self.sessions):
            session.close("The portal stops")
        for task in self._main:
            task.cancel()
        try:
            await self._tasks.__aexit__(None, None, None)
        finally:
            self._put_back()

    def _put_back(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._udp is not None:
            self._udp.close()
        self.switch.close()
        self._ground.undo(self._journal)
        self._status.remove()
        self._journal.close()

    def _guard(self) -> LoopGuard:
        return LoopGuard(secrets.token_bytes(ID), self._chance)

    async def _listen(self) -> None:
        host = LOOPBACK if self.config.relay is not None else self.config.local or "0.0.0.0"  # noqa: S104 - the key decides
        self._server = await ssh.listen(host, self.config.port, self.host_key, lambda: Gate(self))
        self.port = self._server.sockets[0].getsockname()[1]

    def _open_udp(self) -> socket.socket:
        host = self.config.local or "0.0.0.0"  # noqa: S104 - only datagrams that carry a key's tag are taken
        return udp_socket(host, 0 if self.config.active else self.port)

    async def _keep_looking(self) -> None:
        due = 0.0
        while True:
            now = time.monotonic()
            if now >= due and not self.config.active:
                due = now + NAMES
                await self._look_up()
            for session in self.sessions:
                if isinstance(session, Session):
                    session.tick()
            for crossing in self.switch.crossings.values():
                if crossing.broken:
                    raise NoTap(crossing.broken)
                crossing.tick()
            self._status.write(self, now)
            await asyncio.sleep(TICK)

    # Connecting.

    async def _dial(self) -> None:
        pause = FIRST_PAUSE
        for host in itertools.cycle(self.config.peer):
            try:
                if await self._join(host):
                    pause = FIRST_PAUSE
            except (OSError, asyncssh.Error, TimeoutError) as error:
                self._note(NotReached(f"{host} port {self.port}: {error or 'no answer'}"))
            await asyncio.sleep(pause * (0.5 + self._chance()))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _join(self, host: str) -> bool:
        """Be joined to the partner there until the connection ends; return whether there was one."""
        async with asyncio.timeout(ATTEMPT):
            conn = await ssh.connect(
                host, self.port, self.config.local or None, self.host_key, self.key, asyncssh.SSHClient
            )
        try:
            session = await self._meet(conn)
            if session is not None:
                await conn.wait_closed()
            return session is not None
        finally:
            conn.abort()
            await conn.wait_closed()

    async def _meet(self, conn: ssh.ClientConnection) -> AnySession | None:
        if self.config.planes != (PlaneName.CLASSIC,):
            session = self.new_session(conn)
            session.open()
            async with asyncio.timeout(ATTEMPT):
                met = await session.met
            if met:
                await self._forward(conn, session)
                return session
            if conn.is_closed():
                return None
        if PlaneName.CLASSIC not in self.config.planes:
            self._note(NotReached("The peer is plain OpenSSH, and `planes` does not allow for that"))
            return None
        classic = self.new_classic(conn)
        classic.open()
        await self._hurry(conn)
        return classic

    async def _hurry(self, conn: ssh.ClientConnection) -> None:
        """Have sshd turn Nagle's algorithm off, which it does for whoever starts a command, and for nobody else."""
        with suppress(asyncssh.Error, TimeoutError):  # it lets us run none: then it is slower, and a peer all the same
            async with asyncio.timeout(ATTEMPT):
                await conn.run("true")

    async def _forward(self, conn: ssh.ClientConnection, session: Session) -> None:
        """Make the services of each end reachable at the other."""
        assert session.peer is not None
        try:
            for one in self.config.forward:
                await conn.forward_local_port(*endpoint(one.listen), *endpoint(one.to))
            for one in session.peer.forwards:
                if one.to in self.config.permit:
                    await conn.forward_remote_port(*endpoint(one.listen), *endpoint(one.to))
        except (OSError, asyncssh.Error) as error:  # the networks are joined all the same
            self._note(NotReached(f"A service cannot be forwarded: {error}"))

    # Sessions.

    def new_session(self, conn: ssh.FrameConnection) -> Session:
        """For a connection to a partner of ours."""
        session = Session(self.config, self.switch, conn, self._udp, time.time_ns(), self._admit, self._ended)
        self.sessions.append(session)
        return session

    def new_classic(self, conn: ssh.FrameConnection) -> ClassicSession:
        """For a connection to plain OpenSSH."""
        session = ClassicSession(self.switch, conn, self._ended)
        self.sessions.append(session)
        return session

    def _admit(self, session: Session, hello: Hello) -> bool:
        """The newest generation wins."""
        older = self.own
        if not self.config.active and older is not None and older.peer is not None:
            if hello.generation < older.peer.generation:
                return False
            older.close("A newer connection is there")
        self.own = session
        return True

    def _ended(self, session: AnySession, reason: str) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
        if self.own is session:
            self.own = None
        if not self._stopping:
            self._note(NotReached(reason))
        unmet = isinstance(session, Session) and session.peer is None
        if (
            not unmet or session.conn.is_server()
        ):  # else it may be plain OpenSSH, for which the connection is still good
            session.conn.abort()

    def may_come_from(self, address: str) -> bool:
        """Whether the partner may have this address."""
        if self.config.nat_partner or self.config.relay is not None or not self.config.peer:
            return True
        return any(same_address(address, one) for one in self._admitted)

    async def _look_up(self) -> None:
        loop = asyncio.get_running_loop()
        for name in self.config.peer:
            with suppress(OSError):  # a name that is unknown now may be known in a minute
                for *_, address in await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM):
                    self._admitted.add(str(address[0]))

    def _note(self, error: NotReached) -> None:
        if error.message != self.why:
            log.warning("%s: %s", error.code, error.message)
        self.why = error.message

    def _pause(self) -> Iterator[float]:
        pause = FIRST_PAUSE
        while True:
            yield pause * (0.5 + self._chance())
            pause = min(pause * 2, LONGEST_PAUSE)


def _private_key(config: PortalConfig, key: str) -> asyncssh.SSHKey:
    return _read(config, key, asyncssh.read_private_key)


def _public_key(config: PortalConfig, key: str) -> asyncssh.SSHKey:
    return _read(config, key, asyncssh.read_public_key)


def _read(config: PortalConfig, key: str, read: Callable[[Any], asyncssh.SSHKey]) -> asyncssh.SSHKey:
    path = getattr(config, key)
    try:
        return read(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise UnusableConfig(f"{key}: {path} holds no key: {error}") from error
