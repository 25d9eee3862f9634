"""What every component of the mesh is made of: its key, its link, its store with the tables of the day, its node.

    async with open_component(config, "rendezvous.migrations", link, clock) as component:
        …handlers on component.mesh…
        component.offer_status(lambda: {"alive": "3"})
        async with component.mesh: …                       then it lives

The node is handed out before it is entered, because handlers come first. Nothing here waits for the XMPP server: `missing`
says, for `/readyz`, what of it is not there and what an operator can do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge

from fedkit.clock import Clock
from fedkit.identity.keys import PrivateKey
from fedkit.mesh import services
from fedkit.mesh.config import Identity, Store, Xmpp
from fedkit.mesh.link import Link
from fedkit.mesh.node import MeshNode
from fedkit.mesh.xmpp import XmppLink
from fedkit.migrations import upgrade
from fedkit.store import Database


class MeshConfig(Protocol):
    """The sections that the configuration of every component has."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def xmpp(self) -> Xmpp:
        """Its link."""

    @property
    def store(self) -> Store:
        """Where it stores."""


@dataclass(frozen=True)
class Component:
    """The parts, ready for the handlers of one component."""

    key: PrivateKey
    db: Database
    mesh: MeshNode
    link: Link
    xmpp: Xmpp

    def missing(self) -> list[str]:
        """What keeps it from being ready (`fedkit.service.Readiness`)."""
        if self.link.connected:
            return []
        return [self.link.problem or "no link to the XMPP server"]

    def offer_status(self, more: Callable[[], dict[str, str]]) -> None:
        """Answer the operators' ad-hoc command `status` (XEP-0050) with what every component has, and `more`."""

        async def status() -> dict[str, str]:
            mesh = await self.mesh.status()
            known = {"fedid": mesh.me.fedid, "outbox": str(mesh.waiting), "peers": str(len(mesh.peers))}
            return known | more()

        if isinstance(self.link, XmppLink):
            services.install(self.link.xmpp, self.xmpp.operators, status)

    def metrics(self) -> CollectorRegistry:
        """A new registry with what every component has (Prometheus)."""
        registry = CollectorRegistry()
        up = Gauge("fedmesh_mesh_connected", "Whether the link to the XMPP server is up.", registry=registry)
        up.set_function(lambda: self.mesh.connected)
        return registry


@asynccontextmanager
async def open_component(
    config: MeshConfig, migrations: str, link: Link | None, clock: Clock
) -> AsyncIterator[Component]:
    """Open key, link and store, run the package `migrations` on it; without a `link`, on the server that `config` names.

    Raises `UnusableConfig` or `UnusableKey` for files that cannot be used.
    """
    key = PrivateKey.load(config.identity.key)
    xmpp = config.xmpp
    link = link or XmppLink(xmpp.address, xmpp.secret(), xmpp.host, xmpp.port, xmpp.keepalive)
    async with Database(config.store.url) as db:
        await asyncio.to_thread(upgrade, db.engine, migrations)
        mesh = MeshNode(key, xmpp.address, db, link, clock, requests_per_second=xmpp.requests_per_second)
        yield Component(key, db, mesh, link, xmpp)
