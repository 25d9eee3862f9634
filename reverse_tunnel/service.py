"""The reverse tunnel server's life: tables, mesh, ssh, and the two tasks that act by themselves.

Both tasks find their work in the tables and in what is open now, so that starting, going on and recovering are the same:

 * the *journal* writes down which ports went up or down and tells the controllers. It looks at the present, not at what happened:
   a port that flaps is told once, and after a crash everybody who was told "up" is told the truth.
 * *expiry* sleeps until the next lease is due and ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from fedkit.clock import Clock, now
from fedkit.mesh.component import Component, open_component
from fedkit.mesh.link import Link
from fedkit.mesh.node import MeshNode
from fedkit.service import HttpServer, add_health_routes
from fedkit.store import Database, Tx
from reverse_tunnel.config import TunnelConfig
from reverse_tunnel.model import LeaseKey
from reverse_tunnel.server import SshServer
from reverse_tunnel.store import PortBook
from reverse_tunnel.traffic import TrafficCollector
from reverse_tunnel.wire import Wire

log = structlog.get_logger()

LONGEST_SLEEP = 3600.0  # seconds; the wall clock may be set meanwhile


class TunnelService:
    """Everything between the tables and the sockets; `open_tunnel_server` opens it."""

    def __init__(self, config: TunnelConfig, db: Database, mesh: MeshNode, clock: Clock) -> None:
        self._db = db
        self._mesh = mesh
        self._clock = clock
        self._dirty: dict[LeaseKey, None] = {}
        self._journal_due = asyncio.Event()
        self._expiry_due = asyncio.Event()
        self.book = PortBook(config.tunnel.host, config.tunnel.address, config.tunnel.port_range)
        self.server = SshServer(config.tunnel, config.limits, db, mesh, self.book, clock, self._changed)
        Wire(config.tunnel, db, mesh, self.book, self.server, clock, self._expiry_due.set)

    @asynccontextmanager
    async def live(self) -> AsyncIterator[None]:
        """Serve while the context is open. What closes with it is not told: after a restart the machines are back at once."""
        for key in await self._db.run(self.book.prepare):
            self._changed(key)
        async with self.server, self._mesh, asyncio.TaskGroup() as tasks:
            acting = [tasks.create_task(self._journal()), tasks.create_task(self._expire())]
            yield
            for task in acting:
                task.cancel()

    def status(self) -> dict[str, str]:
        """What an operator's XMPP client is shown (XEP-0050), beside what every component tells."""
        connections, ports = self.server.open_now()
        return {"connections": str(connections), "ports up": str(ports)}

    def _changed(self, key: LeaseKey) -> None:
        self._dirty[key] = None
        self._journal_due.set()

    async def _journal(self) -> None:
        while True:
            await self._journal_due.wait()
            self._journal_due.clear()
            changed, self._dirty = self._dirty, {}
            async with asyncio.TaskGroup() as writes:  # they share one commit
                for key in changed:
                    writes.create_task(self._write_down(key, self.server.ports_up(key)))

    async def _write_down(self, key: LeaseKey, up: set[int]) -> None:
        def write(tx: Tx) -> None:
            news = self.book.set_up(tx, key, up)
            if news is not None:
                self._mesh.enqueue(tx, news[0], "tunnel.changed", news[1])

        await self._db.run(write)

    async def _expire(self) -> None:
        while True:
            self._expiry_due.clear()
            for ended in await self._db.run(lambda tx: self.book.expire(tx, self._clock())):
                log.info("lease_expired", lease=ended.key.lease_id, ports=ended.ports)
                self.server.drop_lease(ended.key)
            due = await self._db.read(self.book.next_expiry)
            sleep = LONGEST_SLEEP if due is None else max(0.0, due - self._clock().timestamp())
            try:
                async with asyncio.timeout(min(sleep, LONGEST_SLEEP)):
                    await self._expiry_due.wait()
            except TimeoutError:
                pass


@asynccontextmanager
async def open_tunnel_server(
    config: TunnelConfig, link: Link | None = None, clock: Clock = now
) -> AsyncIterator[TunnelService]:
    """Open the whole component; without a `link`, on the XMPP server that `config` names."""
    async with open_component(config, "reverse_tunnel.migrations", link, clock) as component:
        service = TunnelService(config, component.db, component.mesh, clock)
        component.offer_status(service.status)
        app = web.Application()
        add_health_routes(app, component.missing, _metrics(service, component))
        async with service.live(), HttpServer(app, config.http.listen):
            yield service


def _metrics(service: TunnelService, component: Component) -> CollectorRegistry:
    metrics = component.metrics()
    metrics.register(TrafficCollector(service.server.traffic, service.server.open_now))
    return metrics
