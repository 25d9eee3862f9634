"""The Rendezvous's process: its store, its node of the mesh, the list, and health over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge

from fedkit.clock import Clock, now
from fedkit.mesh.component import Component, open_component
from fedkit.mesh.link import Link
from fedkit.mesh.xmpp import XmppLink
from fedkit.service import HttpServer, add_health_routes
from rendezvous import discovery
from rendezvous.config import RendezvousConfig
from rendezvous.registry import Registry


@asynccontextmanager
async def open_rendezvous(
    config: RendezvousConfig, link: Link | None = None, clock: Clock = now
) -> AsyncIterator[Registry]:
    """Open the whole component; without a `link`, on the XMPP server that `config` names."""
    async with open_component(config, "rendezvous.migrations", link, clock) as component:
        db, mesh = component.db, component.mesh
        registry = Registry(db, mesh, config.rendezvous, clock)
        component.offer_status(lambda: {"alive": str(registry.listed[True]), "gone": str(registry.listed[False])})
        if isinstance(component.link, XmppLink):
            discovery.install(component.link.xmpp, db, config.xmpp.operators)
        app = web.Application()
        add_health_routes(app, component.missing, _metrics(registry, component))
        await registry.prepare()
        async with mesh, registry.running(), HttpServer(app, config.http.listen):
            yield registry


def _metrics(registry: Registry, component: Component) -> CollectorRegistry:
    metrics = component.metrics()
    members = Gauge("fedmesh_rendezvous_members", "Members on the list.", ["state"], registry=metrics)
    members.labels("alive").set_function(lambda: registry.listed[True])
    members.labels("gone").set_function(lambda: registry.listed[False])
    return metrics
