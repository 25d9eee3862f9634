"""Sites on a network in memory whose every effect is a row, so that a test can count effects after any crash.

`Site.say` sends the command `test.say`; the receiver writes a row in `effects`; the sender's answer handler one in `outcomes`.
A text that begins with `refuse` is refused by the handler, with `fail` crashes it.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Row, text

from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Outcome, Peer, Request
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables
from fedkit.protocol import Body, Empty
from fedkit.store import Database, Tx
from tests.support.memory_network import MemoryLink, MemoryNetwork
from tests.support.virtual_time import InlineDatabase, clock


class Say(Body):
    """The body of the test's operations."""

    text: str


class NotToday(FedError):
    """What the test's handler refuses with."""

    code = "test.not_today"
    http = 409


class Site:
    """One site: its key and its database outlive the node that runs on them."""

    def __init__(self, network: MemoryNetwork, name: str, folder: Path) -> None:
        self.network = network
        self.name = name
        self.key = PrivateKey.generate()
        self.address = f"fm.{name}.test"
        self.url = f"sqlite:///{folder / name}.db"
        self.failing: set[str] = set()
        self.alive: list[Peer] = []
        self.asked: list[str] = []
        self.starts = 0
        self.node: MeshNode | None = None
        setup = Database(self.url)
        with setup.engine.begin() as conn:
            create_mesh_tables(conn)
            conn.execute(text("CREATE TABLE effects (seq INTEGER PRIMARY KEY AUTOINCREMENT, jti TEXT, said TEXT)"))
            conn.execute(
                text("CREATE TABLE outcomes (seq INTEGER PRIMARY KEY AUTOINCREMENT, jti TEXT, said TEXT, code TEXT)")
            )
        setup.engine.dispose()

    @property
    def peer(self) -> Peer:
        return Peer(self.key.fedid, self.address)

    @property
    def mesh(self) -> MeshNode:
        assert self.node is not None
        return self.node

    async def start(self) -> Site:
        """Start a node on whatever the database holds."""
        self.starts += 1
        self.db = InlineDatabase(self.url)
        self.link: MemoryLink = self.network.link(self.address)
        node = MeshNode(self.key, self.address, self.db, self.link, clock, chance=random.Random(self.starts))
        node.on_command("test.say", Say, self._hear)
        node.on_query("test.ask", Say, self._reply)
        node.on_answer("test.say", self._settle)
        node.on_peer_alive(self.alive.append)
        await node.__aenter__()
        self.node = node
        return self

    async def stop(self) -> None:
        """End the node where it stands: for the database this is the same as being killed."""
        if self.node is not None:
            node, self.node = self.node, None
            await node.__aexit__(None, None, None)
            await self.db.close()

    async def say(self, peer: Peer, said: str, deadline: float | None = None) -> str:
        """Send a command; `deadline` in seconds from now."""
        due = None if deadline is None else clock() + timedelta(seconds=deadline)
        return await self.db.run(lambda tx: self.mesh.enqueue(tx, peer, "test.say", Say(text=said), deadline=due))

    async def ask(self, peer: Peer, said: str, timeout: float = 5.0) -> str:
        """Ask the query."""
        return (await self.mesh.ask(peer, "test.ask", Say(text=said), Say, timeout=timeout)).text

    def effects(self) -> list[str]:
        """What took effect here, in order."""
        return [row.said for row in self._rows("SELECT said FROM effects ORDER BY seq")]

    def outcomes(self) -> list[tuple[str, str]]:
        """How our commands ended: (what was said, code of the refusal or nothing)."""
        return [(row.said, row.code) for row in self._rows("SELECT said, code FROM outcomes ORDER BY seq")]

    def waiting(self) -> int:
        """Rows in the outbox."""
        return int(self._rows("SELECT count(*) AS n FROM mesh_outbox")[0].n)

    def rows(self, table: str) -> list[dict[str, object]]:
        """A table of the mesh."""
        return [dict(row._mapping) for row in self._rows(f"SELECT * FROM {table}")]

    def _rows(self, query: str) -> list[Row[Any]]:
        engine = Database(self.url).engine
        try:
            with engine.connect() as conn:
                return list(conn.execute(text(query)))
        finally:
            engine.dispose()

    def _hear(self, tx: Tx, request: Request[Say]) -> BaseModel:
        said = request.body.text
        if said.startswith("refuse"):
            raise NotToday("Not today.", said=said)
        tx.conn.execute(text("INSERT INTO effects (jti, said) VALUES (:jti, :said)"), {"jti": request.id, "said": said})
        if said.startswith("fail") and said not in self.failing:
            self.failing.add(said)
            raise RuntimeError("a bug in the handler")
        if said.startswith(("too much", "much")):
            return Say(text="a" * (100_000 if said == "too much" else 20_000))
        return Empty()

    async def _reply(self, request: Request[Say]) -> BaseModel:
        self.asked.append(request.body.text)
        if request.body.text == "slow":
            await asyncio.sleep(60)
        return Say(text=request.body.text.upper())

    def _settle(self, tx: Tx, outcome: Outcome) -> None:
        row = {
            "jti": outcome.request_id,
            "said": outcome.sent["text"][:40],
            "code": outcome.error.code if outcome.error else "",
        }
        tx.conn.execute(text("INSERT INTO outcomes (jti, said, code) VALUES (:jti, :said, :code)"), row)
