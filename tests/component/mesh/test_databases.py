"""The mesh's transactions on SQLite and on PostgreSQL, each with its real threads: two nodes on a network in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from sqlalchemy import text

from fedkit.errors import RemoteError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Outcome, Request
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables, inbox, keys, outbox
from fedkit.protocol import Empty
from fedkit.store import Database, Tx
from tests.support.memory_network import Deliveries, MemoryNetwork, Packet
from tests.support.mesh_sites import NotToday, Say

PATIENCE = 60.0  # seconds until a test gives up


@dataclass
class Pair:
    """A sender and a receiver that share one database server's kind, each with tables of its own."""

    network: MemoryNetwork
    sender: MeshNode
    receiver: MeshNode
    sender_db: Database
    receiver_db: Database
    outcomes: list[Outcome] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def hear(self, tx: Tx, request: Request[Say]) -> Empty:
        tx.conn.execute(text("INSERT INTO effects (said) VALUES (:said)"), {"said": request.body.text})
        if request.body.text.startswith("refuse"):
            raise NotToday("Not today.")
        return Empty()

    def settle(self, tx: Tx, outcome: Outcome) -> None:
        def note() -> None:
            self.outcomes.append(outcome)
            self.changed.set()

        tx.after_commit(note)

    async def say(self, said: str) -> None:
        await self.sender_db.run(lambda tx: self.sender.enqueue(tx, self.receiver.me, "test.say", Say(text=said)))

    async def until_settled(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.outcomes) < number:
                self.changed.clear()
                await self.changed.wait()

    async def effects(self) -> list[str]:
        query = text("SELECT said FROM effects ORDER BY id")
        return await self.receiver_db.read(lambda conn: [row.said for row in conn.execute(query)])


@pytest.fixture
def receiver_url(request: pytest.FixtureRequest, database_url: str) -> str:
    """A second database of the same kind."""
    if database_url.startswith("sqlite"):
        return database_url + ".receiver"
    url: str = request.getfixturevalue("postgres").url()
    return url


@asynccontextmanager
async def pair(sender_url: str, receiver_url: str) -> AsyncIterator[Pair]:
    network = MemoryNetwork()
    async with Database(sender_url) as sender_db, Database(receiver_url) as receiver_db:
        for db in (sender_db, receiver_db):
            await db.run(lambda tx: create_mesh_tables(tx.conn))
        serial = "INTEGER PRIMARY KEY" if sender_db.is_sqlite else "BIGSERIAL PRIMARY KEY"
        await receiver_db.run(
            lambda tx: tx.conn.execute(text(f"CREATE TABLE effects (id {serial}, said TEXT)")) and None
        )
        sender = MeshNode(PrivateKey.generate(), "fm.a.test", sender_db, network.link("fm.a.test"))
        receiver = MeshNode(PrivateKey.generate(), "fm.b.test", receiver_db, network.link("fm.b.test"))
        both = Pair(network, sender, receiver, sender_db, receiver_db)
        receiver.on_command("test.say", Say, both.hear)
        sender.on_answer("test.say", both.settle)
        async with sender, receiver:
            yield both


async def test_many_commands_at_once_arrive_once_and_in_order(database_url: str, receiver_url: str) -> None:
    async with pair(database_url, receiver_url) as both:
        said = [str(number) for number in range(300)]
        for some in (said[:100], said[100:200], said[200:]):
            await both.sender_db.run(
                lambda tx, some=some: [  # type: ignore[misc]
                    both.sender.enqueue(tx, both.receiver.me, "test.say", Say(text=each)) for each in some
                ]
            )
        await both.until_settled(300)
        assert await both.effects() == said
        assert {outcome.error for outcome in both.outcomes} == {None}
        assert await both.sender_db.read(lambda conn: conn.execute(outbox.select()).all()) == []


async def test_a_refusal_undoes_what_its_handler_wrote_and_is_kept(database_url: str, receiver_url: str) -> None:
    async with pair(database_url, receiver_url) as both:
        await both.say("refuse this")
        await both.until_settled(1)
        error = both.outcomes[0].error
        assert isinstance(error, RemoteError)
        assert error.code == "test.not_today"
        assert await both.effects() == []
        assert len(await both.receiver_db.read(lambda conn: conn.execute(inbox.select()).all())) == 1
        assert await both.receiver_db.read(lambda conn: conn.execute(keys.select()).all()) == []
        await both.say("this")
        await both.until_settled(2)
        assert await both.effects() == ["this"]
        assert len(await both.receiver_db.read(lambda conn: conn.execute(keys.select()).all())) == 1


async def test_lost_answers_are_found_in_the_inbox(
    database_url: str, receiver_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedkit.mesh.courier.ATTEMPT_TIMEOUT", 0.3)
    lost: list[Packet] = []

    def lose_first_answers(packet: Packet) -> Deliveries:
        if packet.reply and len(lost) < 3:
            lost.append(packet)
            return []
        return [(0.0, packet)]

    async with pair(database_url, receiver_url) as both:
        both.network.faults = lose_first_answers
        for number in range(5):
            await both.say(str(number))
        await both.until_settled(5)
        assert len(lost) == 3
        assert await both.effects() == ["0", "1", "2", "3", "4"]
