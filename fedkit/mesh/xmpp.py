"""The link: a component (XEP-0114) of the site's own XMPP server that stays connected and carries requests both ways.

    own server ══ `stream` ──┬─ out of bounds: refused here
                             ├─ answers to what is in flight: handed to whoever waits
                             ├─ our requests: answered by the node, in the order in which they came
                             ├─ disco, ping, ad-hoc commands: slixmpp's plugins (`services`)
                             └─ presence, messages: nobody's business, dropped

slixmpp's own stream is not used: its handling of a stanza costs more than ours of a whole signed request, it reconnects late, lets
what is in flight run into its time-out when the link is lost and delivers late what was sent meanwhile. Here what is in flight
fails the moment the link is lost, nothing is sent while it is down, and it is up again within 0.1 to 5 s (with jitter).
"""

from __future__ import annotations

import asyncio
import random
import secrets
from asyncio import TaskGroup
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from xml.etree.ElementTree import Element

import structlog

from fedkit.errors import FedError
from fedkit.mesh import stanzas
from fedkit.mesh.errors import BadAnswer, ComponentRefused, LinkDown, Malformed, MeshError, RateLimited
from fedkit.mesh.limits import Buckets
from fedkit.mesh.link import Incoming, Kind, Serve
from fedkit.mesh.services import Services
from fedkit.mesh.stanzas import Reply
from fedkit.mesh.stream import Stream

log = structlog.get_logger()

CONNECT_TIMEOUT = 10.0  # seconds, until the handshake is done
FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 5.0
REFUSED_DELAY = 30.0  # seconds between attempts where the server refuses us: only a person can mend that
KEEPALIVE = 10.0  # seconds between pings; a peer that only we can reach waits for us so long after its server restarted
PING_TIMEOUT = 10.0  # seconds
OTHERS_RATE = 20.0  # IQs a second from one domain that are not of our protocol
_IQ = f"{{{stanzas.COMPONENT}}}iq"
_ADDRESS = "add this component to the server's configuration, or correct [xmpp] address"
_NEXT_STEPS = {  # stream errors (RFC 6120 §4.9.3) that only a person can mend
    "not-authorized": "put the secret that the server has for it into the file of [xmpp] secret_file, and restart",
    "host-unknown": _ADDRESS,
    "not-allowed": _ADDRESS,
    "policy-violation": "see the server's log",
}


@dataclass(slots=True)
class _Pending:
    """A request in flight: who may answer it, and who waits."""

    to: str
    future: asyncio.Future[Element]


class XmppLink:
    """A component link; see `link.Link` for what it promises."""

    def __init__(self, address: str, secret: str, host: str, port: int, keepalive: Sequence[str] = ()) -> None:
        self._address = address
        self._secret = secret
        self._host = host
        self._port = port
        self._keepalive = keepalive
        self._chance = random.Random()  # noqa: S311  jitter, no secret
        self.xmpp = Services(address, self._write)
        self._stream: Stream | None = None
        self._connected = False
        self._problem = ""
        self._pending: dict[str, _Pending] = {}
        self._prefix = secrets.token_hex(6)
        self._ids = count(1)
        self._out: list[str] | None = None
        self._others = Buckets(OTHERS_RATE, 5 * OTHERS_RATE, lambda: asyncio.get_running_loop().time())

    @property
    def address(self) -> str:
        """Our bare JID."""
        return self._address

    @property
    def connected(self) -> bool:
        """Whether the handshake is done and the link not lost since."""
        return self._connected

    @property
    def problem(self) -> str:
        """Why there is no link and, where the server refuses us, what an operator can do; empty while it is up."""
        return self._problem

    def attach(self, serve: Serve, on_state: Callable[[bool], None]) -> None:
        """Say who answers requests and who is told of the link's state."""
        self._serve, self._on_state = serve, on_state

    async def run(self) -> None:
        """Connect, keep connected, and serve what comes in; until cancelled."""
        self.xmpp.loop = asyncio.get_running_loop()
        try:
            async with TaskGroup() as tasks:
                self._tasks = tasks
                await self._keep_connected()
        finally:
            self._lost()
            if self._stream is not None:
                await self._stream.close()

    async def request(self, to: str, kind: Kind, text: str, timeout: float) -> str:
        """Send one request; see `link.Link.request`."""
        result = await self._ask(to, kind, stanzas.request(text), timeout)
        try:
            return stanzas.payload_text(result, "answer")
        except Malformed as error:
            raise BadAnswer(f"{to} sent no valid answer: {error.message}") from error

    async def _keep_connected(self) -> None:
        delay = FIRST_DELAY
        server = f"{self._host}:{self._port}"
        while True:
            stream = self._stream = Stream(self._address, self._secret, self._take)
            reason = await self._connect(stream)
            if reason is None:
                delay = FIRST_DELAY
                reason = await self._serve_connection(stream)
            step = _NEXT_STEPS.get(stream.condition)
            if step is not None:
                self._problem = f"the XMPP server at {server} refuses {self._address} ({stream.condition}): {step}"
                log.error("mesh_component_refused", code=ComponentRefused.code, reason=self._problem)
                await asyncio.sleep(REFUSED_DELAY)
                continue
            self._problem = f"no link to the XMPP server at {server}: {reason}"
            log.warning("mesh_link_lost", server=server, reason=reason, again_in=delay)
            await asyncio.sleep(delay * self._chance.uniform(0.5, 1.0))
            delay = min(LONGEST_DELAY, delay * 2)

    async def _connect(self, stream: Stream) -> str | None:
        """Make one attempt; return why it failed, or None for a link that is up."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await asyncio.get_running_loop().create_connection(lambda: stream, self._host, self._port)
                await stream.up
        except OSError as error:
            stream.abort("not connected")
            return f"no handshake within {CONNECT_TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
        return stream.down.result() if stream.down.done() else None

    async def _serve_connection(self, stream: Stream) -> str:
        """Live with a link that is up, until it is lost; return why."""
        self._connected, self._problem = True, ""
        self._on_state(True)
        pinging = self._tasks.create_task(self._ping_forever(stream))
        try:
            reason = await stream.down
        finally:
            pinging.cancel()
            self._lost()
        self._on_state(False)
        return reason

    def _lost(self) -> None:
        """Fail what is in flight: its answers cannot come any more."""
        self._connected = False
        self._out = None
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(LinkDown("The link to our XMPP server was lost."))

    async def _ping_forever(self, stream: Stream) -> None:
        """Notice a dead link, and keep the connections open that only we can open (XEP-0288)."""
        while True:
            for peer in self._keepalive:  # at once: until then these cannot reach us
                self._tasks.create_task(self._ping_peer(peer))
            await asyncio.sleep(KEEPALIVE)
            try:
                # to ourselves, by way of the server
                await self._ask(self._address, "get", stanzas.ping(), PING_TIMEOUT)
            except TimeoutError:
                stream.abort(f"the server was silent for {PING_TIMEOUT:g} s")
            except MeshError as error:
                log.info("mesh_ping_failed", peer=self._address, reason=error.message)

    async def _ping_peer(self, peer: str) -> None:
        try:
            await self._ask(peer, "get", stanzas.ping(), PING_TIMEOUT)
        except (MeshError, TimeoutError) as error:
            log.info("mesh_keepalive_failed", peer=peer, reason=str(error) or "no answer")

    async def _ask(self, to: str, kind: Kind, payload: str, timeout: float) -> Element:
        if not self._connected:
            raise LinkDown("The link to our XMPP server is down.")
        identifier = f"{self._prefix}-{next(self._ids)}"
        loop = asyncio.get_running_loop()
        pending = _Pending(to, loop.create_future())
        self._pending[identifier] = pending
        self._write(stanzas.iq_request(identifier, kind, self._address, to, payload))
        timer = loop.call_later(timeout, _expire, pending.future)
        try:
            return await pending.future
        finally:
            timer.cancel()
            del self._pending[identifier]

    def _write(self, stanza: str) -> None:
        """Send the first stanza of this turn of the loop at once, and what follows in one piece at its end."""
        if self._out is not None:
            self._out.append(stanza)
        elif self._connected and self._stream is not None:
            self._stream.write(stanza.encode())
            self._out = []
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        if self._out and self._connected and self._stream is not None:
            self._stream.write("".join(self._out).encode())
        self._out = None

    def _take(self, xml: Element, whole: bool) -> None:
        """Take what came in; what is not `whole` was out of bounds and has lost its contents."""
        if xml.tag != _IQ or not self._connected:
            return  # presence and messages; or we are leaving
        kind = xml.get("type")
        if kind in ("result", "error"):
            self._settle_request(xml)
            return
        reply = stanzas.reply_to(xml)
        if kind not in ("get", "set") or reply is None:
            return  # it cannot be answered
        if not whole:
            log.warning("mesh_stanza_out_of_bounds", sender=reply.to)
            self._write(stanzas.policy_violation(reply))
        elif stanzas.is_ours(xml):
            self._receive(xml, "get" if kind == "get" else "set", reply)
        elif self._admits(reply):
            self.xmpp.answer(xml)

    def _settle_request(self, xml: Element) -> None:
        pending = self._pending.get(xml.get("id", ""))
        if pending is None or xml.get("from") != pending.to or pending.future.done():
            return  # late, or not from whom we asked
        if xml.get("type") == "error":
            pending.future.set_exception(stanzas.bounced(xml))
        else:
            pending.future.set_result(xml)

    def _receive(self, xml: Element, kind: Kind, reply: Reply) -> None:
        try:
            text = stanzas.payload_text(xml, "request")
        except Malformed as error:
            log.warning("mesh_refused", code=error.code, reason=error.message, sender=reply.to)
            self._write(stanzas.iq_error(reply, error))
            return
        sender, recipient = reply.to.partition("/")[0], reply.sender.partition("/")[0]
        self._tasks.create_task(self._answer(Incoming(sender, recipient, kind, text), reply))

    async def _answer(self, incoming: Incoming, reply: Reply) -> None:
        try:
            stanza = stanzas.iq_answer(reply, await self._serve(incoming))
        except FedError as error:
            stanza = stanzas.iq_error(reply, error)
        except Exception:
            log.exception("mesh_request_failed", sender=incoming.sender)
            stanza = stanzas.iq_error(reply, FedError("Failed; see the log."))
        if self._connected:
            self._write(stanza)

    def _admits(self, reply: Reply) -> bool:
        try:
            self._others.take(reply.to.partition("/")[0].rpartition("@")[2])
        except RateLimited as error:
            self._write(stanzas.iq_error(reply, error))
            return False
        return True


def _expire(future: asyncio.Future[Element]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
