"""The member's process: store, node of the mesh, directory, order engine, experiments over it, and the API in front of them.

    store ─► migrations ─► mesh ─► order engine (both books, middleware) ─► experiments ─► directory ─► API
                            each is there before what needs it, and outlives it; stopping goes the other way

Nothing here waits for the mesh: a member whose XMPP server is down serves its users and its own machines, and `/readyz`
says what is missing.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry, Gauge

from federation_member.access.service import Access
from federation_member.accounts.service import Accounts
from federation_member.accounts.signing_in import SignIn
from federation_member.config import MemberConfig, PeerSection
from federation_member.credentials.identities import HomeIdentities
from federation_member.credentials.revoking import Revoking
from federation_member.credentials.service import Credentials
from federation_member.directory.service import Directory
from federation_member.experiments import store as experiment_store
from federation_member.experiments.service import Experiments
from federation_member.middleware.contract import Middleware
from federation_member.orders.picker import load_picker
from federation_member.orders.retention import Retention
from federation_member.orders.service import OrderService
from federation_member.plugins import load_identity_provider, load_middleware
from federation_member.usage.service import Usage
from federation_member.web.app import make_app
from federation_member.web.services import Services
from fedkit.clock import Clock, now
from fedkit.mesh.api import Peer
from fedkit.mesh.component import Component, open_component
from fedkit.mesh.link import Link
from fedkit.mesh.node import MeshNode
from fedkit.service import HttpServer

PICKER = "round-robin"


@dataclass(frozen=True)
class Member:
    """A running member, for tests and tools in the same process."""

    mesh: MeshNode
    directory: Directory
    orders: OrderService
    experiments: Experiments
    access: Access
    accounts: Accounts
    http: HttpServer


@asynccontextmanager
async def open_member(
    config: MemberConfig, link: Link | None = None, middleware: Middleware | None = None, clock: Clock = now
) -> AsyncIterator[Member]:
    """Open the whole component; `link` and `middleware` are those that `config` names unless a test brings its own."""
    middleware = middleware or load_middleware(config.middleware.kind, config.middleware.options)
    providers = {one.name: load_identity_provider(one.kind, one.options) for one in config.identity_provider}
    async with open_component(config, "federation_member.migrations", link, clock) as component:
        key, db, mesh = component.key, component.db, component.mesh
        directory = Directory(db, mesh, key, config.name, _peer(config.rendezvous), clock)
        access = Access(db, key, config.xmpp.address, config.policy, clock)
        identities = HomeIdentities(key, clock)
        orders = OrderService(
            db,
            mesh,
            directory,
            middleware,
            access.controller,
            identities,
            load_picker(PICKER),
            clock,
            name=config.name,
            attributes=config.offer.attributes,
            tunnel_server=_peer(config.tunnel),
            worker=f"{socket.gethostname()} {config.api.listen}",
        )
        experiments = Experiments(db, orders.engine, identities, clock)
        revoking = Revoking(db, mesh, key, _peer(config.rendezvous), clock, directory.revocations.take)
        directory.revocations.on_revoked(orders.revoked)
        directory.on_whole_list(revoking.publish_again)
        credentials = Credentials(db, revoking, clock, orders.look_again)
        accounts = Accounts(db, clock, on_change=credentials.look)
        services = Services(
            orders,
            experiments,
            directory,
            accounts,
            SignIn(accounts, providers),
            credentials,
            access.log,
            Usage(db, clock),
            key.fedid,
            config.name,
            component.missing,
        )
        http = HttpServer(make_app(services, _metrics(component, directory)), config.api.listen)
        store = config.store
        keep, keep_usage = timedelta(days=store.keep_days), timedelta(days=store.keep_usage_days)
        retention = Retention(db, clock, keep, keep_usage, {"experiments": experiment_store.forget})
        component.offer_status(lambda: {"directory": directory.freshness()})
        with closing(accounts):
            async with (
                access.running(),
                mesh,
                orders,
                experiments.running(),
                directory.running(),
                retention.running(),
                credentials.running(),
                http,
            ):
                yield Member(mesh, directory, orders, experiments, access, accounts, http)


def _peer(section: PeerSection | None) -> Peer | None:
    return Peer(section.fedid, section.address) if section else None


def _metrics(component: Component, directory: Directory) -> CollectorRegistry:
    metrics = component.metrics()
    current = Gauge(
        "fedmesh_directory_current", "Whether the list of members is what the Rendezvous holds.", registry=metrics
    )
    current.set_function(lambda: directory.state().current)
    return metrics
