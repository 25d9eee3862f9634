"""What the rest of the system knows of the mesh: requests go out, requests come in, each exactly once.

Three kinds of operation:

* a **command** changes something. The sender writes it to its outbox with `Mesh.enqueue` in the transaction of the
  state change that caused it. At the receiver a `CommandHandler` runs in the transaction that writes the inbox row and
  the answer, so its effect and its answer are one; a retry gets the stored answer. The handler never waits:
  long work is a row that it writes and a service that finds the row. At the sender the answer is handed to the
  `AnswerHandler` of that operation in the transaction that closes the outbox row; a crash in between
  only leads to a retry, which the receiver answers from its inbox.
* a **query** changes nothing. It is asked with `Mesh.ask` and answered by an async `QueryHandler`.
* an **event** is a command whose answer interests nobody but the outbox.

A handler refuses by raising a `FedError`; its code, message and details travel back and arrive as `RemoteError`. What the
handler wrote is undone then; a refusal that has to leave something behind is a `RecordedRefusal`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from fedkit.errors import FedError, RemoteError
from fedkit.store import Tx

Body = TypeVar("Body", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True)
class Peer:
    """Somebody to talk to: who it is (fedid) and where its component answers (a bare JID such as `fm.site-b.test`)."""

    fedid: str
    address: str


@dataclass(frozen=True)
class Request(Generic[Body]):
    """A verified request as a handler sees it: the signature, the binding and the schema have been checked."""

    id: str
    sender: Peer
    operation: str
    body: Body
    issued: datetime


@dataclass(frozen=True)
class Outcome:
    """How a command ended, as its sender's `AnswerHandler` sees it.

    `error` is None for an accepted command. A refusal carries the peer's code. A command with a deadline that
    got no answer ends with code `mesh.no_answer` (the peer **may** have executed it).
    """

    request_id: str
    peer: Peer
    operation: str
    sent: dict[str, Any]
    answer: dict[str, Any]
    error: RemoteError | None


class RecordedRefusal(FedError):
    """A refusal that is written down: `record` runs in the same transaction, after what the handler wrote was undone."""

    def __init__(self, message: str, *, record: Callable[[Tx], None] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.record = record or (lambda _tx: None)


CommandHandler = Callable[[Tx, Request[Any]], BaseModel]
QueryHandler = Callable[[Request[Any]], Awaitable[BaseModel]]
AnswerHandler = Callable[[Tx, Outcome], None]


class Mesh(Protocol):
    """One component's place in the mesh."""

    @property
    def me(self) -> Peer:
        """Our own fedid and address."""

    @property
    def connected(self) -> bool:
        """Whether the link to the local XMPP server is up."""

    def on_command(self, operation: str, body: type[BaseModel], handler: CommandHandler) -> None:
        """Serve a command; `body` is its strict schema (unknown keys are refused)."""

    def on_query(self, operation: str, body: type[BaseModel], handler: QueryHandler) -> None:
        """Serve a query."""

    def on_answer(self, operation: str, handler: AnswerHandler) -> None:
        """Be told, transactionally, how each command of this operation ended."""

    def on_peer_alive(self, callback: Callable[[Peer], None]) -> None:
        """Be told when a peer that did not answer is heard of again, and of every peer after our link came back."""

    def on_link(self, callback: Callable[[bool], None]) -> None:
        """Be told when the link to the local XMPP server comes up (True) or goes down (False)."""

    def enqueue(self, tx: Tx, peer: Peer, operation: str, body: BaseModel, *, deadline: datetime | None = None) -> str:
        """Write a command to the outbox and return its request id.

        Without a deadline it is retried until it is answered. Commands to one peer without a deadline are delivered
        in the order of their ids; a command with a deadline overtakes those that wait for a dead peer.
        """

    def backing_off(self, peer: Peer) -> datetime | None:
        """Return until when `peer` is not tried because it did not answer; None if it is tried. From any thread, at once."""

    async def ask(
        self, peer: Peer, operation: str, body: BaseModel, answer: type[Answer], *, timeout: float = 5.0
    ) -> Answer:
        """Ask a query and return its validated answer.

        Raises `RemoteError` (refused), `fedkit.mesh.errors.PeerUnreachable` (not reachable, or backing off) or
        `fedkit.mesh.errors.NoAnswer` (`timeout` seconds went by).
        """
