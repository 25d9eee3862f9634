"""The life of the list: who is silent too long is gone, and whoever lives is told what changed.

    announce, leave ─► commit ─┐                        ┌─► _tell: one notice under way to each subscriber that is behind
    due time of an entry ──────┴─► _expire (next due) ──┘      ▲
                                                               └── its answer: the next one, if there is more

Both loops find their work in the tables: a wake-up says only "look". Nothing happens while nothing is due.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from fedkit.clock import Clock, now
from fedkit.mesh.api import Mesh
from fedkit.store import Database
from rendezvous import store
from rendezvous.config import RendezvousSection
from rendezvous.wire import Wire

log = structlog.get_logger()


class Registry:
    """The Rendezvous's own work, on an open database and a mesh that someone else runs."""

    def __init__(self, db: Database, mesh: Mesh, config: RendezvousSection, clock: Clock = now) -> None:
        self._db = db
        self._clock = clock
        self._due = asyncio.Event()
        self._untold = asyncio.Event()
        self.listed = {True: 0, False: 0}  # how many are alive and gone, for the metrics
        self._wire = Wire(db, mesh, config, clock, self.look, self._untold.set)

    def look(self) -> None:
        """Something changed, or time went by: look at the tables."""
        self._due.set()
        self._untold.set()

    async def prepare(self) -> None:
        """Make the tables fit to be asked; before the mesh connects."""
        await self._db.run(lambda tx: store.create_list(tx, secrets.token_hex(16)))
        await self._db.run(lambda tx: store.grant_grace(tx, self._clock()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Registry]:
        """Expire and tell while the context is open; inside of the mesh's."""
        self.look()
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(self._expire()), tasks.create_task(self._tell())]
            try:
                yield self
            finally:
                for loop in loops:
                    loop.cancel()

    async def _expire(self) -> None:
        while True:
            self._due.clear()
            gone = await self._db.run(lambda tx: store.expire(tx, self._clock()))
            for fedid in gone:
                log.info("member_gone", fedid=fedid, reason="silent for longer than its ttl")
            if gone:
                self._untold.set()
            self.listed = await self._db.read(store.count_members)
            due = await self._db.read(store.next_due)
            seconds = None if due is None else max(0.0, (due - self._clock()).total_seconds())
            try:
                async with asyncio.timeout(seconds):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def _tell(self) -> None:
        while True:
            await self._untold.wait()
            self._untold.clear()
            while await self._db.run(self._wire.tell):
                pass
