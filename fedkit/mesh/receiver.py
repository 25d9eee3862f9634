"""Answers what comes in. Every request gets a definite answer at once: done, or refused with a code (DESIGN §4.3).

    text ─► size, rate ─► signature, claims ─► addressed to us? in time? key pinned? ─► operation, body's schema
              └─── an unsigned IQ error ───┘   └─────────── a signed refusal ──────────────────────────────────┘
                 ─► command: inbox, handler and answer in one transaction        ─► query: once, async

What was checked before the signature can be anybody's doing, so it is answered unsigned and changes nothing at the sender. Every refusal
is logged with its code and the request's id.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import pydantic_core
import structlog
from pydantic import BaseModel, ValidationError

from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.mesh import chunks, inbox
from fedkit.mesh.api import CommandHandler, Peer, QueryHandler, Request
from fedkit.mesh.chunks import Assemblies
from fedkit.mesh.envelope import (
    LIFETIME_LIMIT,
    SPOKEN,
    TEXT_LIMIT,
    Binding,
    RequestClaims,
    open_request,
    seal_answer,
)
from fedkit.mesh.errors import (
    BadBody,
    BadSignature,
    Busy,
    Expired,
    Misdirected,
    NoAnswer,
    Refused,
    TooLarge,
    UnknownOperation,
    UnspokenVersion,
)
from fedkit.mesh.limits import Buckets, SeenQueries
from fedkit.mesh.link import Incoming, Kind
from fedkit.mesh.pins import Pins
from fedkit.store import Database

log = structlog.get_logger()

SKEW = 60.0  # seconds that two clocks may differ
RUNNING = 256  # requests worked on at once
STRANGER_RATE = 10.0  # requests a second from somebody whose key is not pinned
STRANGER_BURST = 50.0
FORGERY_COST = 20.0  # tokens that a text with a bad signature costs its sender

H = TypeVar("H")


@dataclass(frozen=True)
class Operation(Generic[H]):
    """A registered operation: its body's schema and its handler."""

    body: type[BaseModel]
    handler: H


@dataclass(frozen=True)
class _Checked:
    """A request that is genuine, ours, fresh and well-formed."""

    claims: RequestClaims
    key: PublicKey
    pinned: bool
    sender: Peer
    raw: bytes
    request: Request[Any]


@dataclass
class Receiver:
    """Answers requests to `me`. `now` is seconds since the epoch, `monotonic` seconds since anything."""

    key: PrivateKey
    me: Peer
    db: Database
    pins: Pins
    heard: Callable[[Peer], None]
    now: Callable[[], float]
    monotonic: Callable[[], float]
    rate: float
    commands: dict[str, Operation[CommandHandler]] = field(default_factory=dict)
    queries: dict[str, Operation[QueryHandler]] = field(default_factory=dict)
    running: int = 0

    def __post_init__(self) -> None:
        self._rates = Buckets(self.rate, 2 * self.rate, self.monotonic)
        self._strangers = Buckets(STRANGER_RATE, STRANGER_BURST, self.monotonic)
        self._seen = SeenQueries()
        self._assemblies = Assemblies(self.monotonic)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.queries[chunks.OPERATION] = Operation(chunks.Chunk, self._take_chunk)

    async def serve(self, stanza: Incoming) -> str:
        """Return the signed answer to an IQ, or raise what goes back as an IQ error."""
        if self.running >= RUNNING:
            raise Busy(f"{RUNNING} requests are being worked on.")
        self.running += 1
        try:
            return await self._serve(stanza)
        finally:
            self.running -= 1

    async def _serve(self, stanza: Incoming) -> str:
        try:
            if len(stanza.text) > TEXT_LIMIT:
                raise TooLarge(f"A text has at most {TEXT_LIMIT} characters; send a larger body in chunks.")
            self._rates.take(_domain(stanza.sender))
            key, claims = open_request(stanza.text)
        except BadSignature as error:
            self._punish(stanza.sender)
            self._log(stanza, error)
            raise
        except FedError as error:
            self._log(stanza, error)
            raise
        content = await self._judge(stanza, key, claims)
        return seal_answer(self.key, self.me, Peer(claims.iss, claims.sjid), claims, self.now(), content)

    async def _judge(self, stanza: Incoming, key: PublicKey, claims: Binding) -> str:
        """Return the content of the signed answer."""
        try:
            checked = await self._check(stanza, key, claims)
            if stanza.kind == "set":
                return await self._command(checked)
            return await self._query(checked)
        except FedError as error:
            self._log(stanza, error, id=claims.jti, operation=claims.op, fedid=claims.iss)
            return inbox.error_content(error)
        except Exception:
            log.exception("mesh_handler_failed", id=claims.jti, operation=claims.op, peer=claims.sjid)
            return inbox.error_content(FedError("The peer failed over this request; its log names it.", id=claims.jti))

    async def _check(self, stanza: Incoming, key: PublicKey, claims: Binding) -> _Checked:
        self._check_direction(stanza, claims)
        if not isinstance(claims, RequestClaims):
            raise UnspokenVersion(
                f"Protocol {claims.v} is not spoken here; we speak {', '.join(SPOKEN)}.", spoken=list(SPOKEN)
            )
        self._check_time(claims)
        pinned = await self._is_pinned(key)
        if not pinned:
            self._strangers.take(_domain(stanza.sender))
        schema = self._schema(stanza.kind, claims.op)
        raw = self._raw_body(claims)
        sender = Peer(claims.iss, claims.sjid)
        issued = datetime.fromtimestamp(claims.since, UTC)
        request = Request(claims.jti, sender, claims.op, _validated(schema, raw), issued)
        return _Checked(claims, key, pinned, sender, raw, request)

    async def _is_pinned(self, key: PublicKey) -> bool:
        if self.pins.known(key):
            return True
        pinned = await self.db.read(lambda conn: self.pins.look_up(conn, key))
        if pinned:
            self.pins.remember(key)
        return pinned

    def _schema(self, kind: Kind, name: str) -> type[BaseModel]:
        served: Mapping[str, Operation[Any]] = self.commands if kind == "set" else self.queries
        other: Mapping[str, Operation[Any]] = self.queries if kind == "set" else self.commands
        if name not in served:
            hint = f" It is a {'query' if kind == 'set' else 'command'}." if name in other else ""
            raise UnknownOperation(f"Nobody here serves {name} by an IQ of type {kind}.{hint}")
        return served[name].body

    def _check_direction(self, stanza: Incoming, claims: Binding) -> None:
        if claims.aud != self.me.fedid or claims.rjid != self.me.address or stanza.recipient != self.me.address:
            raise Misdirected(
                f"Signed for {claims.aud} at {claims.rjid}; this is {self.me.fedid} at {self.me.address}.",
                aud=claims.aud,
                rjid=claims.rjid,
            )
        if stanza.sender != claims.sjid:
            raise Misdirected(f"Signed by {claims.sjid}, but delivered for {stanza.sender}.", sjid=claims.sjid)

    def _check_time(self, claims: RequestClaims) -> None:
        now = self.now()
        clocks = {"our_clock": now, "issued": claims.iat, "expires": claims.exp}
        if claims.iat > now + SKEW:
            raise Expired(f"Issued at {claims.iat:.3f}, which is in the future: our clock says {now:.3f}.", **clocks)
        if claims.exp < now - SKEW:
            raise Expired(f"Expired at {claims.exp:.3f}; our clock says {now:.3f}.", **clocks)
        if claims.exp - claims.iat > LIFETIME_LIMIT:
            raise Expired(f"An attempt is valid for at most {LIFETIME_LIMIT:g} s.", **clocks)
        if claims.since < now - inbox.RETRY_WINDOW - SKEW or claims.since > claims.iat + SKEW:
            raise Expired(f"First issued at {claims.since:.3f}: outside of what is remembered here.", **clocks)

    def _raw_body(self, claims: RequestClaims) -> bytes:
        if claims.ref is None:
            return pydantic_core.to_json(claims.body)
        return self._assemblies.get(claims.iss, claims.ref.sha256, claims.ref.size)

    async def _command(self, checked: _Checked) -> str:
        claims = checked.claims
        command = inbox.Command(
            claims=claims,
            digest=inbox.digest(claims.op, checked.raw),
            key=checked.key,
            pinned=checked.pinned,
            request=checked.request,
            handler=self.commands[claims.op].handler,
        )
        # SQLite has one writer, who takes us in turn; elsewhere one sender's commands are kept in line here.
        async with nullcontext() if self.db.is_sqlite else self._turns[claims.iss]:
            try:
                content = await self.db.run(lambda tx: inbox.execute(tx, self.pins, command, self.now()))
            except inbox.HandlerRefused as refusal:
                error = refusal.error
                log.info("mesh_command_refused", id=claims.jti, operation=claims.op, peer=claims.sjid, code=error.code)
                content = await self.db.run(lambda tx: inbox.record_refusal(tx, command, error, self.now()))
        if claims.ref is not None:
            self._assemblies.drop(claims.iss, claims.ref.sha256)
        if checked.pinned or self.pins.known(checked.key):
            self.heard(checked.sender)  # a stranger who was refused leaves no trace
        return content

    async def _query(self, checked: _Checked) -> str:
        claims = checked.claims
        now = self.now()
        self._seen.check(claims.iss, claims.jti, claims.n, claims.exp + SKEW, now)
        if checked.pinned:
            self.heard(checked.sender)
        try:
            async with asyncio.timeout(max(0.0, claims.exp - claims.iat)):
                answer = await self.queries[claims.op].handler(checked.request)
        except TimeoutError as error:
            raise NoAnswer(f"{claims.op} took longer than its sender waits.") from error
        return inbox.body_content(answer.model_dump_json().encode())

    async def _take_chunk(self, request: Request[chunks.Chunk]) -> chunks.Received:
        return self._assemblies.add(request.sender.fedid, request.body)

    def _punish(self, sender: str) -> None:
        try:
            self._rates.take(_domain(sender), FORGERY_COST)
        except Refused:
            log.warning("mesh_forgeries", sender=sender)

    def _log(self, stanza: Incoming, error: FedError, **more: str) -> None:
        log.warning("mesh_refused", code=error.code, reason=error.message, sender=stanza.sender, **more)


def _domain(jid: str) -> str:
    return jid.rpartition("@")[2]


def _validated(model: type[BaseModel], raw: bytes) -> BaseModel:
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)[:16]
        fields = [".".join(map(str, item["loc"])) or "(body)" for item in found]
        said = "; ".join(f"{name}: {item['msg']}" for name, item in zip(fields, found, strict=True))
        raise BadBody(f"The body does not fit: {said}", fields=fields) from error
