"""One component's node of the mesh: the parts put together behind `api.Mesh`.

    node = MeshNode(key, address, db, link)
    node.on_command("lease.create", LeaseCreate, handler)      handlers first
    async with node: …                                         then it lives

On entry the tables are read and the link begins to connect; entry does not wait for it. On exit everything stops where it
stands: what is not done is in the tables.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import TaskGroup
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from uuid import uuid4

import pydantic_core
import structlog
from pydantic import BaseModel, ValidationError
from sqlalchemy import text

from fedkit.clock import Clock
from fedkit.clock import now as wall_clock
from fedkit.errors import RemoteError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh import inbox, outbox
from fedkit.mesh.api import Answer, AnswerHandler, CommandHandler, Peer, QueryHandler
from fedkit.mesh.courier import Courier
from fedkit.mesh.dispatcher import Dispatcher
from fedkit.mesh.envelope import BODY_LIMIT, INLINE_LIMIT, Draft
from fedkit.mesh.errors import BadAnswer, Bounced, LinkDown, NoAnswer, PeerUnreachable, TooLarge
from fedkit.mesh.exchange import Exchange, attempt_numbers
from fedkit.mesh.link import Link
from fedkit.mesh.outbox import Entry
from fedkit.mesh.peers import Health, Peers
from fedkit.mesh.pins import Pins
from fedkit.mesh.receiver import Receiver
from fedkit.mesh.work import Operation, Work
from fedkit.store import Database, Tx

log = structlog.get_logger()

SHARE_EVERY = 0.5  # seconds between two looks at what other processes have written
PRUNE_EVERY = 600.0  # seconds; rows are kept until a time that stands in them, this only frees their room

_NEXT_EPOCH = text(
    "INSERT INTO mesh_epochs (address, epoch) VALUES (:address, 1)"
    " ON CONFLICT (address) DO UPDATE SET epoch = mesh_epochs.epoch + 1 RETURNING epoch"
)


class _Stop(Exception):
    """Ends the node's tasks."""


@dataclass(frozen=True)
class Status:
    """How the node is, for health checks and for operators."""

    me: Peer
    connected: bool
    waiting: int
    running: int
    peers: list[Health]


class MeshNode:
    """Implements `api.Mesh` on a database and a link."""

    def __init__(
        self,
        key: PrivateKey,
        address: str,
        db: Database,
        link: Link,
        clock: Clock = wall_clock,
        *,
        chance: random.Random | None = None,
        requests_per_second: float = 500.0,
    ) -> None:
        self._key = key
        self._me = Peer(key.fedid, address)
        self._db = db
        self._link = link
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311  jitter, no secret
        self._rate = requests_per_second
        self._pins = Pins()
        self._commands: dict[str, Operation[CommandHandler]] = {}
        self._queries: dict[str, Operation[QueryHandler]] = {}
        self._answers: dict[str, AnswerHandler] = {}
        self._alive_callbacks: list[Callable[[Peer], None]] = []
        self._link_callbacks: list[Callable[[bool], None]] = []
        self._exchange = Exchange(key, self._me, link, db, self._pins)
        self._peers = Peers(db, self._now, self._chance)
        self._dispatcher: Dispatcher | None = None
        self._offered_early: set[Peer] = set()
        self._receiver: Receiver | None = None

    @property
    def me(self) -> Peer:
        """Our own fedid and address."""
        return self._me

    @property
    def connected(self) -> bool:
        """Whether the link to the local XMPP server is up."""
        return self._link.connected

    def on_command(self, operation: str, body: type[BaseModel], handler: CommandHandler) -> None:
        """Serve a command; before entry."""
        self._commands[operation] = Operation(body, handler)

    def on_query(self, operation: str, body: type[BaseModel], handler: QueryHandler) -> None:
        """Serve a query; before entry."""
        self._queries[operation] = Operation(body, handler)

    def on_answer(self, operation: str, handler: AnswerHandler) -> None:
        """Be told, transactionally, how each command of this operation ended; before entry."""
        self._answers[operation] = handler

    def on_peer_alive(self, callback: Callable[[Peer], None]) -> None:
        """Be told when a failing peer is heard again, and of every peer that is not failing when our link comes up."""
        self._alive_callbacks.append(callback)

    def on_link(self, callback: Callable[[bool], None]) -> None:
        """Be told when the link comes up or goes down."""
        self._link_callbacks.append(callback)

    async def __aenter__(self) -> MeshNode:
        loop = asyncio.get_running_loop()
        epoch, waiting = await self._db.run(self._begin)
        self._numbers = attempt_numbers(epoch)
        self._tasks = TaskGroup()
        await self._tasks.__aenter__()
        work = Work(
            db=self._db,
            pins=self._pins,
            heard=self._heard,
            now=self._now,
            monotonic=loop.time,
            commands=self._commands,
            queries=self._queries,
        )
        self._receiver = Receiver(
            key=self._key,
            me=self._me,
            db=self._db,
            pins=self._pins,
            work=work,
            now=self._now,
            monotonic=loop.time,
            rate=self._rate,
        )
        self._dispatcher = Dispatcher(
            db=self._db,
            peers=self._peers,
            courier=Courier(self._exchange, self._numbers, self._now),
            handlers=self._answers,
            heard=self._heard,
            now=self._now,
            chance=self._chance,
        )
        self._dispatcher.start(self._tasks, [*waiting, *self._offered_early.difference(waiting)])
        self._tasks.create_task(self._peers.flush_forever())
        self._tasks.create_task(self._prune_forever())
        if not self._db.is_sqlite:
            self._tasks.create_task(self._share_forever())
        self._link.attach(self._receiver.serve, self._on_link)
        self._tasks.create_task(self._link.run())
        await asyncio.sleep(0)  # lets it begin
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._dispatcher is not None
        self._dispatcher.stop()
        self._dispatcher = None
        try:
            await self._tasks.__aexit__(_Stop, _Stop(), None)
        except* _Stop:
            pass

    def enqueue(self, tx: Tx, peer: Peer, operation: str, body: BaseModel, *, deadline: datetime | None = None) -> str:
        """Write a command to the outbox and return its request id; raise `TooLarge`."""
        printed = body.model_dump_json()
        size = len(printed.encode())
        if size > BODY_LIMIT:
            raise TooLarge(f"{operation} has a body of {size} octets; at most {BODY_LIMIT} are carried.", size=size)
        created = self._now()
        due = created + inbox.RETRY_WINDOW if deadline is None else deadline.timestamp()
        entry = Entry(str(uuid4()), peer, operation, printed, created, due, ordered=deadline is None)
        outbox.insert(tx, entry)
        tx.after_commit(lambda: self._offer(entry))
        return entry.jti

    async def ask(
        self, peer: Peer, operation: str, body: BaseModel, answer: type[Answer], *, timeout: float = 5.0
    ) -> Answer:
        """Ask a query and return its validated answer; see `api.Mesh.ask`. Raises `TooLarge` above 45 000 octets."""
        draft = self._draft(peer, operation, body, timeout)
        health = self._peers.of(peer)
        if not self.connected:
            raise LinkDown("The link to our XMPP server is down.")
        if health.backing_off(draft.iat):
            raise PeerUnreachable(
                f"{peer.address} did not answer lately ({health.last_error}); it is tried again at "
                f"{datetime.fromtimestamp(health.next_attempt).astimezone().isoformat(timespec='seconds')}.",
                next_attempt=health.next_attempt,
                last_error=health.last_error,
            )
        try:
            result = await self._exchange("get", draft, timeout)
        except TimeoutError as error:
            if health.last_heard <= draft.iat:
                self._peers.failed(peer, draft.iat, f"no answer to {operation} within {timeout:g} s")
            raise NoAnswer(f"{peer.address} did not answer {operation} within {timeout:g} s.") from error
        except (Bounced, BadAnswer) as error:
            if not (isinstance(error, Bounced) and error.retry_after):
                self._peers.failed(peer, draft.iat, error.message)
            raise PeerUnreachable(f"{peer.address} cannot be asked: {error.message}", **error.details) from error
        self._heard(peer)
        if result.error is not None:
            raise RemoteError(result.error.code, result.error.message, result.error.details)
        try:
            return answer.model_validate_json(pydantic_core.to_json(result.body), strict=True)
        except ValidationError as error:
            raise BadAnswer(f"{peer.address} answered {operation} with something else than asked for.") from error

    def backing_off(self, peer: Peer) -> datetime | None:
        """Return until when `peer` is not tried because it did not answer; None if it is tried."""
        health = self._peers.find(peer)
        if health is None or not health.backing_off(self._now()):
            return None
        return datetime.fromtimestamp(health.next_attempt, UTC)

    async def status(self) -> Status:
        """How the node is."""
        assert self._receiver is not None
        waiting = await self._db.read(outbox.count)
        return Status(self._me, self.connected, waiting, self._receiver.running, self._peers.all())

    def _draft(self, peer: Peer, operation: str, body: BaseModel, timeout: float) -> Draft:
        printed = body.model_dump_json()
        if len(printed.encode()) > INLINE_LIMIT:
            raise TooLarge(f"{operation} has a body of more than {INLINE_LIMIT} octets, too large for a query.")
        now = self._now()
        content = f'"body":{printed}'
        return Draft(peer, str(uuid4()), next(self._numbers), operation, content, now, now + timeout, now)

    def _now(self) -> float:
        return self._clock().timestamp()

    def _begin(self, tx: Tx) -> tuple[int, list[Peer]]:
        epoch = tx.conn.execute(_NEXT_EPOCH, {"address": self._me.address}).scalar_one()
        self._peers.load(tx.conn)
        return epoch, outbox.waiting_peers(tx.conn)

    def _offer(self, entry: Entry) -> None:
        if self._dispatcher is not None:
            self._dispatcher.offer(entry)
        else:  # the start under way may have read the table before this row was there
            self._offered_early.add(entry.peer)

    def _heard(self, peer: Peer) -> None:
        if self._peers.heard(peer):
            self._tell_alive(peer)
            if self._dispatcher is not None:
                self._dispatcher.wake_peer(peer.fedid)

    def _on_link(self, up: bool) -> None:
        log.info("mesh_link", up=up, address=self._me.address)
        for callback in self._link_callbacks:
            callback(up)
        if up and self._dispatcher is not None:
            self._dispatcher.wake()
            now = self._now()
            for health in self._peers.all():
                if not health.backing_off(now):
                    self._tell_alive(health.peer)

    def _tell_alive(self, peer: Peer) -> None:
        for callback in self._alive_callbacks:
            callback(peer)

    async def _share_forever(self) -> None:
        """Send what other processes on the same database have written: an address has one link, which may be ours."""
        while True:
            await asyncio.sleep(SHARE_EVERY)
            try:
                peers = await self._db.read(lambda conn: outbox.neglected_peers(conn, self._now() - SHARE_EVERY))
            except Exception:
                log.exception("mesh_outbox_not_read")
            else:
                if self._dispatcher is not None:
                    self._dispatcher.reread(peers)

    async def _prune_forever(self) -> None:
        while True:
            try:
                while await self._db.run(lambda tx: inbox.prune(tx, self._now())):
                    pass
            except Exception:
                log.exception("mesh_inbox_not_pruned")
            await asyncio.sleep(PRUNE_EVERY)
