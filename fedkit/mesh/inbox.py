"""What came in: the transaction that makes a command take effect once.

    look up (sender, request id) ── there ──► same attempt: replay; later attempt: the stored answer
             │ not there
             ▼
    handler's effect + inbox row with the answer, in one commit

The row of an accepted command stays as long as its sender may repeat it (`RETRY_WINDOW` after it was first written down; the
sender gives up then, and an older one is refused as expired). A refusal had no effect, so forgetting it is harmless
and its row stays only for `REFUSAL_KEPT`: a stranger cannot fill the table.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pydantic_core
import structlog

from fedkit.errors import FedError
from fedkit.identity.keys import PublicKey
from fedkit.mesh.api import CommandHandler, RecordedRefusal, Request
from fedkit.mesh.envelope import INLINE_LIMIT
from fedkit.mesh.errors import AnswerTooLarge, IdReused, OutOfOrder, Replayed
from fedkit.mesh.pins import Pins
from fedkit.mesh.sql import Savepoint, Statement
from fedkit.store import Tx

log = structlog.get_logger()

RETRY_WINDOW = 7 * 86400.0  # seconds
REFUSAL_KEPT = 600.0  # seconds
CLOCK_SLACK = 300.0  # seconds
PRUNED_AT_ONCE = 1000  # rows

_FIND = Statement("SELECT n, digest, answer FROM mesh_inbox WHERE sender = :sender AND jti = :jti")
_EXISTS = Statement("SELECT 1 FROM mesh_inbox WHERE sender = :sender AND jti = :jti")
_SEEN = Statement("UPDATE mesh_inbox SET n = :n WHERE sender = :sender AND jti = :jti")
_STORE = Statement(
    "INSERT INTO mesh_inbox (sender, jti, n, digest, answer, keep_until)"
    " VALUES (:sender, :jti, :n, :digest, :answer, :keep_until)"
)
_PRUNE = Statement(
    "DELETE FROM mesh_inbox WHERE (sender, jti) IN"
    " (SELECT sender, jti FROM mesh_inbox WHERE keep_until < :now LIMIT :at_once)"
)


@dataclass(frozen=True, slots=True)
class Command:
    """A command whose signature, binding and schema were checked."""

    n: int
    since: float
    after: str | None
    digest: bytes
    key: PublicKey
    pinned: bool
    request: Request[Any]
    handler: CommandHandler

    @property
    def name(self) -> dict[str, str]:
        """The key of its row."""
        return {"sender": self.request.sender.fedid, "jti": self.request.id}


def digest(operation: str, body: bytes) -> bytes:
    """What a request id stands for; a repetition must say the same."""
    return hashlib.sha256(operation.encode() + b"\0" + body).digest()


def body_content(body: bytes) -> str:
    """The part of an answer's claims that carries a body; raise `AnswerTooLarge`."""
    if len(body) > INLINE_LIMIT:
        raise AnswerTooLarge(f"The answer has {len(body)} octets; at most {INLINE_LIMIT} fit. Ask for less at once.")
    return f'"body":{body.decode()}'


def error_content(error: FedError) -> str:
    """The part of an answer's claims that carries a refusal; details that do not fit are left out."""
    fault = {"code": error.code, "message": error.message[:4096], "details": error.details}
    printed = pydantic_core.to_json(fault, serialize_unknown=True)
    if len(printed) > INLINE_LIMIT:
        printed = json.dumps({**fault, "details": {}}).encode()
    return f'"error":{printed.decode()}'


def execute(tx: Tx, pins: Pins, command: Command, now: float) -> str:
    """Execute a command, or find what it was answered; return the answer's content.

    A handler's refusal undoes what the handler wrote, and is kept as the answer. Any other exception undoes everything.
    """
    stored = _stored(tx, command)
    if stored is not None:
        return stored
    if command.after is not None and not _executed(tx, command.request.sender.fedid, command.after):
        raise OutOfOrder(f"Command {command.after} comes first.", after=command.after)
    callbacks = len(tx.callbacks)
    savepoint = Savepoint(tx)
    try:
        answer = body_content(command.handler(tx, command.request).model_dump_json().encode())
    except FedError as error:
        savepoint.undo()
        del tx.callbacks[callbacks:]
        if isinstance(error, RecordedRefusal):
            error.record(tx)
        answer, keep_until = _refuse(command.request, error), now + REFUSAL_KEPT
    else:
        keep_until = command.since + RETRY_WINDOW + CLOCK_SLACK
        if not command.pinned:
            pins.pin(tx, command.key, now)
    savepoint.release()
    _store(tx, command, answer, keep_until)
    return answer


def prune(tx: Tx, now: float) -> bool:
    """Forget what nobody can ask for any more; tell whether there may be more of it."""
    return _PRUNE.run(tx, {"now": now, "at_once": PRUNED_AT_ONCE}) == PRUNED_AT_ONCE


def _refuse(request: Request[Any], error: FedError) -> str:
    log.info(
        "mesh_command_refused",
        id=request.id,
        operation=request.operation,
        peer=request.sender.address,
        code=error.code,
        reason=error.message,
    )
    return error_content(error)


def _stored(tx: Tx, command: Command) -> str | None:
    row = _FIND.first(tx, command.name)
    if row is None:
        return None
    seen, said, answer = row
    jti, n = command.request.id, command.n
    if bytes(said) != command.digest:
        raise IdReused(f"Request id {jti} stands for another request.")
    if n <= seen:
        raise Replayed(f"Attempt {n} of {jti} is not newer than attempt {seen}, which was answered.")
    _SEEN.run(tx, {**command.name, "n": n})
    return str(answer)


def _executed(tx: Tx, sender: str, jti: str) -> bool:
    return _EXISTS.first(tx, {"sender": sender, "jti": jti}) is not None


def _store(tx: Tx, command: Command, answer: str, keep_until: float) -> None:
    row = {"n": command.n, "digest": command.digest, "answer": answer, "keep_until": keep_until}
    _STORE.run(tx, {**command.name, **row})
