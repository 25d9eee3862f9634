"""Carries out what a genuine request asks: finds the operation, checks the body, runs the handler, makes the answer.

command ─► inbox, effect and answer in one transaction (`inbox`)        query ─► once, async, within its sender's patience
pack ────► its commands, one after the other, each with an answer of its own (`packs`)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import pydantic_core
import structlog
from pydantic import BaseModel, ValidationError

from fedkit.errors import FedError
from fedkit.identity.keys import PublicKey
from fedkit.mesh import chunks, inbox, packs
from fedkit.mesh.api import CommandHandler, Peer, QueryHandler, Request
from fedkit.mesh.chunks import Assemblies
from fedkit.mesh.envelope import RequestClaims
from fedkit.mesh.errors import BadBody, Expired, NoAnswer, SendAgain, UnknownOperation
from fedkit.mesh.limits import SeenQueries
from fedkit.mesh.link import Kind
from fedkit.mesh.pins import Pins
from fedkit.store import Database

log = structlog.get_logger()

SKEW = 60.0  # seconds that two clocks may differ
TURNS = 256  # locks that senders share, where the database has more than one writer
TOO_MUCH = inbox.error_content(SendAgain("The answer does not fit with the others; send this command alone."))

H = TypeVar("H")
B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class Operation(Generic[H]):
    """A registered operation: its body's schema and its handler."""

    body: type[BaseModel]
    handler: H


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, as the signature proves it, and how long it waits (seconds since the epoch)."""

    peer: Peer
    key: PublicKey
    pinned: bool
    issued: float
    expires: float


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked: a request alone, or one of a pack. `raw` is the body as JSON."""

    jti: str
    n: int
    op: str
    since: float
    after: str | None
    raw: bytes


@dataclass
class Work:
    """Does the work of one node. `now` is seconds since the epoch, `monotonic` seconds since anything."""

    db: Database
    pins: Pins
    heard: Callable[[Peer], None]
    now: Callable[[], float]
    monotonic: Callable[[], float]
    commands: dict[str, Operation[CommandHandler]] = field(default_factory=dict)
    queries: dict[str, Operation[QueryHandler]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen = SeenQueries()
        self._assemblies = Assemblies(self.monotonic)
        self._turns = [asyncio.Lock() for _ in range(TURNS)]
        self.queries[chunks.OPERATION] = Operation(chunks.Chunk, self._take_chunk)

    async def do(self, kind: Kind, claims: RequestClaims, asker: Asker) -> str:
        """Do what a request asks and return its answer's content; raise `FedError` for a refusal."""
        if claims.ref is None:
            raw = pydantic_core.to_json(claims.body)
        else:
            raw = self._assemblies.get(claims.iss, claims.ref.sha256, claims.ref.size)
        task = Task(claims.jti, claims.n, claims.op, claims.since, claims.after, raw)
        if kind == "get":
            return await self._query(task, asker)
        content = await self._command(task, asker)
        if claims.ref is not None:
            self._assemblies.drop(claims.iss, claims.ref.sha256)
        return content

    async def do_pack(self, pack: packs.Pack, asker: Asker) -> str:
        """Do the commands of a pack in their order; each is refused or accepted by itself."""
        tasks = [
            Task(item.jti, item.n, item.op, item.since, item.after, pydantic_core.to_json(item.body))
            for item in pack.items
        ]
        contents = await asyncio.gather(*(answered(self._command(task, asker), task, asker) for task in tasks))
        answers = [(task.jti, task.n, content) for task, content in zip(tasks, contents, strict=True)]
        return inbox.body_content(packs.print_answers(answers, TOO_MUCH))

    async def _command(self, task: Task, asker: Asker) -> str:
        now = self.now()
        if task.since < now - inbox.RETRY_WINDOW - SKEW or task.since > asker.issued + SKEW:
            raise Expired(
                f"First issued at {task.since:.3f}, outside of what is remembered here; our clock says {now:.3f}.",
                our_clock=now,
                since=task.since,
            )
        operation = self._find("set", task.op)
        command = inbox.Command(
            n=task.n,
            since=task.since,
            after=task.after,
            digest=inbox.digest(task.op, task.raw),
            key=asker.key,
            pinned=asker.pinned,
            request=_request(operation, task, asker),
            handler=self.commands[task.op].handler,
        )
        # SQLite has one writer, who takes us in turn; elsewhere one sender's commands are kept in line here.
        async with nullcontext() if self.db.is_sqlite else self._turns[int(asker.peer.fedid[:2], 16)]:
            content = await self.db.run(lambda tx: inbox.execute(tx, self.pins, command, now))
        if asker.pinned or self.pins.known(asker.key):
            self.heard(asker.peer)  # a stranger who was refused leaves no trace
        return content

    async def _query(self, task: Task, asker: Asker) -> str:
        operation = self._find("get", task.op)
        request = _request(operation, task, asker)
        self._seen.check(asker.peer.fedid, task.jti, task.n, asker.expires + SKEW, self.now())
        if asker.pinned:
            self.heard(asker.peer)
        try:
            async with asyncio.timeout(max(0.0, asker.expires - asker.issued)):
                answer = await self.queries[task.op].handler(request)
        except TimeoutError as error:
            raise NoAnswer(f"{task.op} took longer than its sender waits.") from error
        return inbox.body_content(answer.model_dump_json().encode())

    async def _take_chunk(self, request: Request[chunks.Chunk]) -> chunks.Received:
        return self._assemblies.add(request.sender.fedid, request.body)

    def _find(self, kind: Kind, name: str) -> Operation[Any]:
        served: Mapping[str, Operation[Any]] = self.commands if kind == "set" else self.queries
        other: Mapping[str, Operation[Any]] = self.queries if kind == "set" else self.commands
        if name not in served:
            hint = f" It is a {'query' if kind == 'set' else 'command'}." if name in other else ""
            raise UnknownOperation(f"Nobody here serves {name} by an IQ of type {kind}.{hint}")
        return served[name]


async def answered(work: Coroutine[Any, Any, str], task: Task | RequestClaims, asker: Asker) -> str:
    """Await work and return its answer's content, which for a refusal or a failure of ours is an error."""
    named = {"id": task.jti, "operation": task.op, "peer": asker.peer.address}
    try:
        return await work
    except FedError as error:
        log.warning("mesh_refused", code=error.code, reason=error.message, fedid=asker.peer.fedid, **named)
        return inbox.error_content(error)
    except Exception:
        log.exception("mesh_handler_failed", **named)
        return inbox.error_content(FedError("The peer failed over this request; its log names it.", id=task.jti))


def validated(model: type[B], raw: bytes) -> B:
    """Check a body strictly against its schema; raise `BadBody` naming the fields that do not fit."""
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[:16]
        fields = [".".join(map(str, item["loc"])) or "(body)" for item in found]
        said = "; ".join(f"{name}: {item['msg']}" for name, item in zip(fields, found, strict=True))
        raise BadBody(f"The body does not fit: {said}", fields=fields) from error


def _request(operation: Operation[Any], task: Task, asker: Asker) -> Request[Any]:
    issued = datetime.fromtimestamp(task.since, UTC)
    return Request(task.jti, asker.peer, task.op, validated(operation.body, task.raw), issued)
