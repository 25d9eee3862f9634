"""The mesh over two real Prosody servers: TLS between them, components on their links, and the servers' deaths."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from slixmpp import JID, ComponentXMPP
from structlog.testing import capture_logs

from fedkit.identity.keys import PrivateKey
from fedkit.mesh import services, xmpp
from fedkit.mesh.api import Outcome, Request
from fedkit.mesh.errors import LinkDown, PeerUnreachable
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables
from fedkit.mesh.xmpp import XmppLink
from fedkit.protocol import Empty
from fedkit.store import Database, Tx
from tests.support.mesh_sites import Say
from tests.support.prosody import Prosody

Servers = tuple[Prosody, Prosody]
PATIENCE = 30.0  # seconds until a test gives up


@dataclass
class Station:
    """One component with its node and database."""

    server: Prosody
    db: Database
    link: XmppLink
    node: MeshNode
    effects: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, tx: Tx, request: Request[Say]) -> Empty:
        tx.after_commit(lambda: self._note(self.effects, request.body.text))
        return Empty()

    def settle(self, tx: Tx, outcome: Outcome) -> None:
        tx.after_commit(lambda: self._note(self.outcomes, outcome))

    async def reply(self, request: Request[Say]) -> Say:
        return Say(text=request.body.text.upper())

    async def say(self, to: Station, text: str) -> None:
        await self.db.run(lambda tx: self.node.enqueue(tx, to.node.me, "test.say", Say(text=text)))

    async def ask(self, to: Station, text: str) -> str:
        return (await self.node.ask(to.node.me, "test.ask", Say(text=text), Say)).text

    async def until(self, condition: Any) -> None:
        """Wait until something noted here makes `condition()` true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def _note(self, book: list[Any], item: Any) -> None:
        book.append(item)
        self.changed.set()


def _longer_than(book: list[str], length: int) -> bool:
    return len(book) > length


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what nobody can tell us of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def station(server: Prosody, folder: Path, **options: Any) -> AsyncIterator[Station]:
    """A component on `server`, connected."""
    async with Database(f"sqlite:///{folder}/{server.domain}.db") as db:
        await db.run(lambda tx: create_mesh_tables(tx.conn))
        link = XmppLink(server.component, server.secret, server.host, server.port, **options)
        node = MeshNode(PrivateKey.generate(), server.component, db, link)
        here = Station(server, db, link, node)
        node.on_command("test.say", Say, here.hear)
        node.on_query("test.ask", Say, here.reply)
        node.on_answer("test.say", here.settle)
        node.on_link(lambda up: here.changed.set())
        async with node:
            await here.until(lambda: node.connected)
            yield here


@asynccontextmanager
async def stations(servers: Servers, folder: Path) -> AsyncIterator[tuple[Station, Station]]:
    async with station(servers[0], folder) as a, station(servers[1], folder) as b:
        yield a, b


class RawComponent:
    """A component that sends whatever a test likes, byte by byte."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def connect(self, server: Prosody) -> RawComponent:
        self.reader, self.writer = await asyncio.open_connection(server.host, server.port)
        self.writer.write(
            f"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' "
            f"to='{self.address}'>".encode()
        )
        header = await self.until(">", 2)
        identifier = header.split("id='")[1].split("'")[0]
        digest = hashlib.sha1(f"{identifier}{server.secret}".encode()).hexdigest()
        self.writer.write(f"<handshake>{digest}</handshake>".encode())
        await self.until("<handshake/>")
        return self

    async def until(self, text: str, count: int = 1) -> str:
        data = ""
        async with asyncio.timeout(PATIENCE):
            while data.count(text) < count:
                chunk = await self.reader.read(65536)
                assert chunk, f"closed after {data}"
                data += chunk.decode()
        return data

    async def iq(self, to: str, payload: str, kind: str = "get", identifier: str = "x1", end: str = "</iq>") -> str:
        """Send an IQ and return what comes back."""
        self.writer.write(
            f"<iq type='{kind}' id='{identifier}' from='{self.address}' to='{to}'>{payload}</iq>".encode()
        )
        return await self.until(end)

    async def close(self) -> None:
        self.writer.close()


async def test_a_command_and_a_query_across(servers: Servers, tmp_path: Path) -> None:
    async with stations(servers, tmp_path) as (a, b):
        await a.say(b, "hello")
        await a.until(lambda: a.outcomes)
        assert a.outcomes[0].error is None
        assert b.effects == ["hello"]
        assert await b.ask(a, "and back") == "AND BACK"


async def test_a_large_command_across(servers: Servers, tmp_path: Path) -> None:
    async with stations(servers, tmp_path) as (a, b):
        await a.say(b, "é<&>'\"\x00 " * 40_000)
        await a.until(lambda: a.outcomes)
        assert b.effects == ["é<&>'\"\x00 " * 40_000]


async def test_a_killed_server_loses_and_doubles_nothing(servers: Servers, tmp_path: Path) -> None:
    """kill -9 of either server while commands are in flight, then its restart."""
    async with stations(servers, tmp_path) as (a, b):
        said: list[str] = []
        for round_, server in enumerate((servers[1], servers[0], servers[1])):
            for number in range(60):
                said.append(f"{round_}.{number}")
                await a.say(b, said[-1])
            await b.until(partial(_longer_than, b.effects, len(said) - 50))
            server.kill()
            said.append(f"{round_} while it is down")
            await a.say(b, said[-1])
            await asyncio.to_thread(server.start)
        await a.until(lambda: len(a.outcomes) == len(said))
        assert b.effects == said
        assert [outcome.error for outcome in a.outcomes] == [None] * len(said)


async def test_what_is_in_flight_fails_the_moment_the_link_is_lost(servers: Servers, tmp_path: Path) -> None:
    async with stations(servers, tmp_path) as (a, b):
        servers[1].pause(True)
        waiting = asyncio.create_task(a.link.request(b.server.component, "get", "x", 1000.0))
        await asyncio.sleep(0.1)
        servers[0].kill()
        with pytest.raises(LinkDown):
            await waiting
        with pytest.raises(LinkDown):
            await a.ask(b, "anybody there")
        servers[1].pause(False)


async def test_an_absent_component_is_told_at_once(servers: Servers, tmp_path: Path) -> None:
    async with station(servers[0], tmp_path) as a:
        nobody = MeshNode(PrivateKey.generate(), servers[1].component, a.db, a.link)
        with pytest.raises(PeerUnreachable) as raised:
            await a.node.ask(nobody.me, "test.ask", Say(text=""), Say)
        assert raised.value.details["condition"] in ("remote-server-timeout", "service-unavailable")
        with pytest.raises(PeerUnreachable) as raised:
            await a.node.ask(nobody.me, "test.ask", Say(text=""), Say)
        assert raised.value.details["next_attempt"]


async def test_a_silent_server_is_noticed(servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs, or a path that drops everything: the link's own ping ends it."""
    monkeypatch.setattr(xmpp, "KEEPALIVE", 0.2)
    monkeypatch.setattr(xmpp, "PING_TIMEOUT", 0.5)
    async with station(servers[0], tmp_path) as a:
        servers[0].pause(True)
        await a.until(lambda: not a.node.connected)
        servers[0].pause(False)
        await a.until(lambda: a.node.connected)


async def test_a_wrong_secret_is_named(servers: Servers) -> None:
    with capture_logs() as logs:
        link = XmppLink(servers[0].component, "wrong", servers[0].host, servers[0].port)
        running = asyncio.create_task(link.run())
        await eventually(lambda: link.problem and logs)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert "refuses fm.site-a.test (not-authorized)" in link.problem
    assert "secret_file" in link.problem
    assert "mesh.component_refused" in {entry.get("code") for entry in logs}
    assert not link.connected


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("<a xmlns='x'>" * 3000 + "</a>" * 3000, "policy-violation"),
        ("<q xmlns='x'>" + "<a/>" * 30_000 + "</q>", "policy-violation"),
        ("<request xmlns='urn:fedmesh:1'>" + "<a>" * 2000 + "</a>" * 2000 + "</request>", "policy-violation"),
        ("<request xmlns='urn:fedmesh:1'>garbage</request>", "mesh.malformed"),
        ("<request xmlns='urn:fedmesh:1'/>", "mesh.malformed"),
        ("<request xmlns='urn:fedmesh:1'>" + "x" * 100_000 + "</request>", "mesh.too_large"),
        ("<request xmlns='urn:fedmesh:1'>a</request><request xmlns='urn:fedmesh:1'>b</request>", "mesh.malformed"),
        ("<unknown xmlns='urn:example:x'/>", "feature-not-implemented"),
    ],
    ids=["deep", "wide", "deep in ours", "garbage", "empty", "too long", "two", "unknown"],
)
async def test_hostile_stanzas_are_answered_and_the_link_lives(
    servers: Servers, tmp_path: Path, payload: str, expected: str
) -> None:
    """A hostile component of another site, through both servers."""
    async with stations(servers, tmp_path) as (a, b):
        evil = await RawComponent(servers[1].components[1]).connect(servers[1])
        assert expected in await evil.iq(a.server.component, payload)
        assert a.node.connected
        assert await b.ask(a, "still there") == "STILL THERE"
        await evil.close()


async def test_a_bomb_of_entities_never_arrives(servers: Servers, tmp_path: Path) -> None:
    """The server ends the hostile component's stream; ours does not notice."""
    async with stations(servers, tmp_path) as (a, b):
        evil = await RawComponent(servers[0].components[1]).connect(servers[0])
        with pytest.raises(AssertionError, match="closed"):
            await evil.iq(a.server.component, "<!DOCTYPE b [<!ENTITY a 'aaaa'>]><b>&a;</b>")
        assert await b.ask(a, "still there") == "STILL THERE"


async def test_presence_messages_and_nameless_iqs_are_nobodys_business(servers: Servers, tmp_path: Path) -> None:
    async with stations(servers, tmp_path) as (a, b):
        evil = await RawComponent(servers[1].components[1]).connect(servers[1])
        to = f"from='{evil.address}' to='{a.server.component}'"
        for stanza in (
            "<presence {} type='subscribe'/>",
            "<message {}><body>hi</body></message>",
            "<iq {} type='get'/>",
        ):
            evil.writer.write(stanza.format(to).encode())
        evil.writer.write(f"<iq type='result' id='guess' {to}><answer xmlns='urn:fedmesh:1'>x</answer></iq>".encode())
        only_answer = await evil.iq(a.server.component, "<ping xmlns='urn:xmpp:ping'/>", end="/>")
        assert only_answer.count("<iq") == 1
        assert "type='result'" in only_answer
        assert len(a.link.xmpp.client_roster) == 0
        assert await b.ask(a, "still there") == "STILL THERE"
        await evil.close()


async def test_discovery_and_ping_for_any_client(servers: Servers, tmp_path: Path) -> None:
    async with station(servers[0], tmp_path) as a:
        someone = ComponentXMPP(servers[1].components[1], servers[1].secret, servers[1].host, 5347, fix_error_ns=True)  # type: ignore[no-untyped-call]
        services.describe(someone)
        ready = asyncio.Event()
        someone.add_event_handler("session_start", lambda _event: ready.set())
        someone.connect(servers[1].host, 5347)
        await asyncio.wait_for(ready.wait(), PATIENCE)
        info = await someone.plugin["xep_0030"].get_info(jid=JID(a.server.component), timeout=10)
        assert "urn:fedmesh:1" in info["disco_info"]["features"]
        assert "urn:xmpp:ping" in info["disco_info"]["features"]
        assert ("component", "generic", None, "fedmesh") in info["disco_info"]["identities"]
        assert await someone.plugin["xep_0199"].ping(JID(a.server.component), timeout=10) < 10
        await someone.disconnect(wait=0.5)


async def test_the_status_command_is_for_operators(servers: Servers, tmp_path: Path) -> None:
    operator = servers[1].components[1]

    async def status() -> dict[str, str]:
        return {"peers": "none & <none>"}

    command = "<command xmlns='http://jabber.org/protocol/commands' node='status' action='execute'/>"
    async with station(servers[0], tmp_path) as a:
        services.install(a.link.xmpp, [operator], status)
        evil = await RawComponent(operator).connect(servers[1])
        answer = await evil.iq(a.server.component, command, "set")
        parsed = fromstring(answer[answer.index("<iq") :].replace("<iq ", "<iq xmlns='jabber:component:accept' ", 1))
        assert "none & <none>" in {element.text for element in parsed.iter() if element.tag.endswith("value")}
        services.install(a.link.xmpp, [], status)
        assert "forbidden" in await evil.iq(a.server.component, command, "set", "x2")
        await evil.close()


async def test_a_peer_that_only_we_can_reach_is_kept_warm(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pings of `keepalive` hold the server-to-server connection open over which the peer can reach us (XEP-0288)."""
    monkeypatch.setattr(xmpp, "KEEPALIVE", 0.2)
    async with station(servers[0], tmp_path, keepalive=[servers[1].component]):
        await eventually(lambda: "site-a.test" in servers[1].log())


async def test_a_peer_that_only_we_can_reach_is_greeted_at_once(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xmpp, "KEEPALIVE", 600.0)
    async with station(servers[0], tmp_path, keepalive=[servers[1].component]):
        await eventually(lambda: "site-a.test" in servers[1].log())
