"""The one thing that the mesh wants of XMPP: carry a text to an address in an IQ, and bring a text back.

Behind it stand `xmpp.XmppLink` (XEP-0114) and, in tests, a network in memory. What a link promises:

* `request` refuses at once while the link is down, and a request in flight fails the moment the link is lost;
* a request is handed to the wire in the order of the calls;
* `sender` of what comes in is what the own XMPP server says it is; a text is at most `envelope.TEXT_LIMIT` long.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["get", "set"]  # a query, a command


@dataclass(frozen=True, slots=True)
class Incoming:
    """An IQ that came in: its bare JIDs, its type and the text of its one element."""

    sender: str
    recipient: str
    kind: Kind
    text: str


Serve = Callable[[Incoming], Awaitable[str]]
"""Returns the text of the answer; a `FedError` that it raises goes back as an IQ error with its code."""


class Link(Protocol):
    """A connection to the own XMPP server."""

    @property
    def address(self) -> str:
        """Our bare JID."""

    @property
    def connected(self) -> bool:
        """Whether a request can be sent now."""

    @property
    def problem(self) -> str:
        """Why there is no link, and what an operator can do about it; may be empty, and is while the link is up."""

    def attach(self, serve: Serve, on_state: Callable[[bool], None]) -> None:
        """Say, before `run`, who answers requests and who is told when the link comes up or goes down."""

    async def run(self) -> None:
        """Connect, keep connected, and serve what comes in; until cancelled."""

    async def request(self, to: str, kind: Kind, text: str, timeout: float) -> str:
        """Send one request and return the text of the result.

        Raises `errors.LinkDown`, `errors.Bounced` (an IQ error) or `TimeoutError` after `timeout` seconds.
        """
