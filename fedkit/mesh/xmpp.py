"""The link on slixmpp: an XMPP component (XEP-0114) of the site's own server, mended where a stranger or a crash could stop it.

    own server ══ TCP ══ slixmpp's stream ── filter ──┬─ bounds (`stanzas.within_bounds`): the worst is refused here
                                                      ├─ our requests and answers: handled here, in order
                                                      ├─ disco, ping, ad-hoc commands: slixmpp's plugins (`services`)
                                                      └─ presence, messages: nobody's business, dropped

What slixmpp 1.17 leaves to its user (measured in the lab): it does not reconnect soon, lets what is in flight run
into its time-out when the link is lost, queues what is sent meanwhile and delivers it late, tries one more handler per
outstanding IQ, and dies of a deep nest of elements. So this module has its own reconnect (0.1 to 5 s, with jitter), its own map of
what is in flight, failed the moment the link is lost, refuses to send while it is down, and filters first.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from asyncio import TaskGroup
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from xml.etree.ElementTree import Element

import structlog
from slixmpp import ComponentXMPP
from slixmpp.xmlstream import StanzaBase

from fedkit.errors import FedError
from fedkit.mesh import services, stanzas
from fedkit.mesh.errors import ComponentRefused, LinkDown, Malformed, MeshError, RateLimited
from fedkit.mesh.limits import Buckets
from fedkit.mesh.link import Incoming, Kind, Serve
from fedkit.mesh.stanzas import Reply

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
        self._host = host
        self._port = port
        self._keepalive = keepalive
        self._chance = random.Random()  # noqa: S311  jitter, no secret
        self.xmpp = ComponentXMPP(address, secret, host, port, fix_error_ns=True)  # type: ignore[no-untyped-call]
        services.describe(self.xmpp)
        self.xmpp.add_filter("in", self._filter)
        self.xmpp.add_event_handler("session_start", lambda _event: _settle(self._up, ""))
        self.xmpp.add_event_handler("disconnected", lambda reason: _settle(self._down, str(reason or "")))
        self.xmpp.add_event_handler("connection_failed", self._connection_failed)
        self.xmpp.add_event_handler("stream_error", self._stream_error)
        self._up: asyncio.Future[str] | None = None
        self._down: asyncio.Future[str] | None = None
        self._connected = False
        self._condition = ""
        self._problem = ""
        self._pending: dict[str, _Pending] = {}
        self._prefix = secrets.token_hex(6)
        self._ids = count(1)
        self._out: list[str] = []
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
        """Why the server refuses us, and what an operator can do about it; empty if it does not."""
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
            await self._close()

    async def request(self, to: str, kind: Kind, text: str, timeout: float) -> str:
        """Send one request; see `link.Link.request`."""
        result = await self._ask(to, kind, stanzas.request(text), timeout)
        return stanzas.payload_text(result, "answer")

    async def _keep_connected(self) -> None:
        delay = FIRST_DELAY
        while True:
            reason = await self._connect()
            if reason is None:
                delay = FIRST_DELAY
                reason = await self._serve_connection()
            self._problem = self._explain()
            if self._problem:
                log.error("mesh_component_refused", code=ComponentRefused.code, reason=self._problem, **self._server)
                await asyncio.sleep(REFUSED_DELAY)
                continue
            log.warning("mesh_link_lost", reason=reason, again_in=delay, **self._server)
            await asyncio.sleep(delay * self._chance.uniform(0.5, 1.0))
            delay = min(LONGEST_DELAY, delay * 2)

    def _explain(self) -> str:
        step = _NEXT_STEPS.get(self._condition)
        if step is None:
            return ""
        server = f"{self._host}:{self._port}"
        return f"the XMPP server at {server} refuses {self._address} ({self._condition}): {step}"

    async def _connect(self) -> str | None:
        """Make one attempt; return why it failed, or None for a link that is up."""
        loop = asyncio.get_running_loop()
        self._up, self._down, self._condition = loop.create_future(), loop.create_future(), ""
        self.xmpp.connect(self._host, self._port)
        await asyncio.wait({self._up, self._down}, timeout=CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if self._down.done():
            return self._condition or self._down.result()
        if self._up.done():
            return None
        await self._close()
        return f"no handshake within {CONNECT_TIMEOUT:g} s"

    async def _serve_connection(self) -> str:
        """Live with a link that is up, until it is lost; return why."""
        assert self._down is not None
        self._connected, self._problem = True, ""
        self._on_state(True)
        pinging = self._tasks.create_task(self._ping_forever())
        try:
            reason = await self._down
        finally:
            pinging.cancel()
            self._lost()
        self._on_state(False)
        return self._condition or reason

    async def _close(self) -> None:
        self.xmpp.cancel_connection_attempt()
        if self.xmpp.is_connected():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.xmpp.disconnect(wait=1.0, ignore_send_queue=True), 2.0)

    def _lost(self) -> None:
        """Fail what is in flight: its answers cannot come any more."""
        self._connected = False
        self._out.clear()
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(LinkDown("The link to our XMPP server was lost."))

    async def _ping_forever(self) -> None:
        """Notice a dead link, and keep the connections open that only we can open (XEP-0288)."""
        while True:
            for peer in self._keepalive:  # at once: until then these cannot reach us
                self._tasks.create_task(self._ping_peer(peer))
            await asyncio.sleep(KEEPALIVE)
            try:
                await self._ask(
                    self._address, "get", stanzas.ping(), PING_TIMEOUT
                )  # to ourselves, by way of the server
            except TimeoutError:
                log.warning("mesh_link_silent", **self._server)
                self.xmpp.abort()
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
        pending = _Pending(to, asyncio.get_running_loop().create_future())
        self._pending[identifier] = pending
        self._write(stanzas.iq_request(identifier, kind, self._address, to, payload))
        try:
            async with asyncio.timeout(timeout):
                return await pending.future
        finally:
            del self._pending[identifier]

    def _write(self, stanza: str) -> None:
        """Send with whatever else is sent in this turn of the loop."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(stanza)

    def _flush(self) -> None:
        if self._out and self._connected:
            self.xmpp.send_raw("".join(self._out))
        self._out.clear()

    def _filter(self, stanza: StanzaBase) -> StanzaBase | None:
        """Look at everything that comes in first; return what slixmpp's plugins shall see."""
        xml = stanza.xml
        if xml.tag != _IQ:
            is_traffic = xml.tag.startswith(f"{{{stanzas.COMPONENT}}}") and not xml.tag.endswith("}handshake")
            return None if is_traffic else stanza  # presence and messages; the rest is the stream's own
        if not self._connected:
            return None  # we are leaving
        kind = xml.get("type")
        if kind in ("result", "error"):
            self._settle_request(xml)
            return None
        reply = stanzas.reply_to(xml)
        if kind not in ("get", "set") or reply is None:
            return None  # it cannot be answered
        if not stanzas.within_bounds(xml):
            log.warning("mesh_stanza_out_of_bounds", sender=reply.to)
            self._write(stanzas.policy_violation(reply))
            return None
        if stanzas.is_ours(xml):
            self._receive(xml, "get" if kind == "get" else "set", reply)
            return None
        return stanza if self._admits(reply) else None

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

    def _connection_failed(self, reason: object) -> None:
        self.xmpp.cancel_connection_attempt()  # its own retries grow to minutes
        _settle(self._down, f"cannot connect: {reason}")

    def _stream_error(self, error: StanzaBase) -> None:
        self._condition = str(error["condition"])

    @property
    def _server(self) -> dict[str, str]:
        return {"server": f"{self._host}:{self._port}", "condition": self._condition}


def _settle(future: asyncio.Future[str] | None, value: str) -> None:
    if future is not None and not future.done():
        future.set_result(value)
