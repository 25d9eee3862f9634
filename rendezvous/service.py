"""The Rendezvous's process: its store, its node of the mesh, the list, and health over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from fedkit.clock import Clock, now
from fedkit.identity.keys import PrivateKey
from fedkit.mesh import services as xmpp_services
from fedkit.mesh.link import Link
from fedkit.mesh.node import MeshNode
from fedkit.mesh.xmpp import XmppLink
from fedkit.migrations import upgrade
from fedkit.service import HttpServer, add_health_routes
from fedkit.store import Database
from rendezvous import discovery
from rendezvous.config import RendezvousConfig
from rendezvous.registry import Registry


@asynccontextmanager
async def open_rendezvous(
    config: RendezvousConfig, link: Link | None = None, clock: Clock = now
) -> AsyncIterator[Registry]:
    """Open the whole component; without a `link`, on the XMPP server that `config` names."""
    key = PrivateKey.load(config.identity.key)
    xmpp = config.xmpp
    link = link or XmppLink(xmpp.address, xmpp.secret(), xmpp.host, xmpp.port, xmpp.keepalive)
    async with Database(config.store.url) as db:
        await asyncio.to_thread(upgrade, db.engine, "rendezvous.migrations")
        mesh = MeshNode(key, xmpp.address, db, link, clock, requests_per_second=xmpp.requests_per_second)
        registry = Registry(db, mesh, config.rendezvous, clock)
        if isinstance(link, XmppLink):
            xmpp_services.install(link.xmpp, xmpp.operators, lambda: _status(registry, mesh))
            discovery.install(link.xmpp, db, xmpp.operators)
        app = web.Application()
        add_health_routes(app, lambda: _missing(mesh), _metrics(registry, mesh))
        await registry.prepare()
        async with mesh, registry.running(), HttpServer(app, config.http.listen):
            yield registry


async def _status(registry: Registry, mesh: MeshNode) -> dict[str, str]:
    """What an operator's XMPP client is shown (XEP-0050)."""
    status = await mesh.status()
    return {
        "fedid": status.me.fedid,
        "alive": str(registry.listed[True]),
        "gone": str(registry.listed[False]),
        "outbox": str(status.waiting),
    }


def _missing(mesh: MeshNode) -> list[str]:
    return [] if mesh.connected else ["no link to the XMPP server"]


def _metrics(registry: Registry, mesh: MeshNode) -> CollectorRegistry:
    metrics = CollectorRegistry()
    members = Gauge("fedmesh_rendezvous_members", "Members on the list.", ["state"], registry=metrics)
    members.labels("alive").set_function(lambda: registry.listed[True])
    members.labels("gone").set_function(lambda: registry.listed[False])
    up = Gauge("fedmesh_mesh_connected", "Whether the link to the XMPP server is up.", registry=metrics)
    up.set_function(lambda: mesh.connected)
    return metrics
