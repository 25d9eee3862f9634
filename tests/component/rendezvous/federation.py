"""A Rendezvous and members on one network in memory, each with its own real store and mesh node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import MetaData

from federation_member.directory import store as directory_store
from federation_member.directory.service import Directory
from fedkit.clock import now
from fedkit.identity.keys import PrivateKey
from fedkit.mesh import tables as mesh_tables
from fedkit.mesh.api import Peer
from fedkit.mesh.node import MeshNode
from fedkit.store import Database
from rendezvous import store as rendezvous_store
from rendezvous.config import RendezvousSection
from rendezvous.registry import Registry
from tests.support.memory_network import MemoryLink, MemoryNetwork

RENDEZVOUS = "rendezvous.site-a.test"
PATIENCE = 30.0  # seconds; only a hang reaches it


@dataclass
class ShiftedClock:
    """The real time, and what a test adds to it."""

    shift: timedelta = timedelta()

    def __call__(self) -> datetime:
        return now() + self.shift

    def advance(self, seconds: float) -> None:
        """Let time go by."""
        self.shift += timedelta(seconds=seconds)


@dataclass
class Member:
    """A running member, as far as its directory goes."""

    directory: Directory
    mesh: MeshNode
    db: Database
    link: MemoryLink

    def reconnect(self) -> None:
        """Lose and regain the link, which makes it say at once that it lives."""
        self.link.set_up(False)
        self.link.set_up(True)

    def names(self, *, alive: bool = True) -> list[str]:
        """Names of those it knows to be alive (or gone)."""
        return sorted(m.name for m in self.directory.members() if m.alive is alive)


@dataclass
class RunningRendezvous:
    """A running Rendezvous."""

    registry: Registry
    mesh: MeshNode
    db: Database
    link: MemoryLink


@dataclass
class Federation:
    """Keys and files outlive the processes that use them, so a member can be restarted."""

    folder: Path
    network: MemoryNetwork = field(default_factory=MemoryNetwork)
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    rendezvous_key: PrivateKey = field(default_factory=PrivateKey.generate)
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    prepare: Callable[[MeshNode], None] = lambda mesh: None  # what else a node is to serve
    new_url: Callable[[], str] | None = None  # of an empty database; SQLite files in the folder without it
    urls: dict[str, str] = field(default_factory=dict)

    def key(self, site: str) -> PrivateKey:
        """The key of a site's member."""
        return self.keys.setdefault(site, PrivateKey.generate())

    @asynccontextmanager
    async def rendezvous(
        self, *, max_members: int = 5000, allow: list[str] | None = None
    ) -> AsyncIterator[RunningRendezvous]:
        """Run the Rendezvous."""
        section = RendezvousSection(allow=allow or ["*"], max_members=max_members)
        async with self.database("rendezvous", rendezvous_store.metadata) as db:
            link = self.network.link(RENDEZVOUS)
            mesh = MeshNode(self.rendezvous_key, RENDEZVOUS, db, link, self.clock)
            self.prepare(mesh)
            registry = Registry(db, mesh, section, self.clock)
            await registry.prepare()
            async with mesh, registry.running():
                yield RunningRendezvous(registry, mesh, db, link)

    @asynccontextmanager
    async def member(self, site: str, *, alone: bool = False, crash: bool = False) -> AsyncIterator[Member]:
        """Run a member; one that will `crash` says no good-bye."""
        peer = None if alone else Peer(self.rendezvous_key.fedid, RENDEZVOUS)
        async with self.database(site, directory_store.metadata) as db:
            link = self.network.link(f"fm.{site}")
            mesh = MeshNode(self.key(site), f"fm.{site}", db, link, self.clock)
            self.prepare(mesh)
            directory = Directory(db, mesh, self.key(site), site, peer, self.clock)
            async with mesh, directory.running():
                yield Member(directory, mesh, db, link)
                if crash:
                    link.set_up(False)

    @asynccontextmanager
    async def database(self, name: str, metadata: MetaData) -> AsyncIterator[Database]:
        if name not in self.urls:
            self.urls[name] = self.new_url() if self.new_url else f"sqlite:///{self.folder / name}.db"
        async with Database(self.urls[name]) as db:
            await asyncio.to_thread(metadata.create_all, db.engine)
            await asyncio.to_thread(mesh_tables.metadata.create_all, db.engine)
            yield db


async def eventually(true: Callable[[], bool]) -> None:
    """Wait until something has become true."""
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for is not ours to signal
            await asyncio.sleep(0.01)
