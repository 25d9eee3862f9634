"""What the server answers to controllers (`fedkit/protocol/tunnel.py`).

Every operation needs a controller that the configuration names, and reaches that controller's leases alone: they are named by its
fedid and its id, so that another's simply do not exist for it. Effects on live connections follow the commit; a crash in between
has closed them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel

from fedkit.clock import Clock
from fedkit.mesh.api import Mesh, Request
from fedkit.protocol import Empty
from fedkit.protocol.tunnel import (
    Grant,
    Granted,
    Reserve,
    Revoke,
    TunnelLeases,
    TunnelLeasesPage,
    TunnelServer,
)
from fedkit.store import Database, Tx
from reverse_tunnel.config import TunnelSection
from reverse_tunnel.errors import NotAController
from reverse_tunnel.model import LeaseKey, key_id
from reverse_tunnel.server import SshServer, load_host_key
from reverse_tunnel.store import PortBook

B = TypeVar("B", bound=BaseModel)


class Wire:
    """Serves the operations `tunnel.*` on a mesh."""

    def __init__(
        self,
        config: TunnelSection,
        db: Database,
        mesh: Mesh,
        book: PortBook,
        server: SshServer,
        clock: Clock,
        expiry_changed: Callable[[], None],
    ) -> None:
        self._db = db
        self._book = book
        self._server = server
        self._config = config
        self._host_key = load_host_key(config.host_key)
        self._clock = clock
        self._expiry_changed = expiry_changed
        mesh.on_query("tunnel.describe", Empty, self._describe)
        mesh.on_query("tunnel.leases", TunnelLeasesPage, self._leases)
        mesh.on_command("tunnel.grant", Grant, self._grant)
        mesh.on_command("tunnel.revoke", Revoke, self._revoke)
        mesh.on_command("tunnel.reserve", Reserve, self._reserve)
        mesh.on_command("tunnel.free", Reserve, self._free)

    async def _describe(self, request: Request[Empty]) -> TunnelServer:
        self._controller(request)
        config = self._config
        return TunnelServer(host=config.host, port=self._server.port, host_key=self._host_key, address=config.address)

    async def _leases(self, request: Request[TunnelLeasesPage]) -> TunnelLeases:
        fedid, page = self._controller(request), request.body
        leases, complete = await self._db.read(lambda conn: self._book.page(conn, fedid, page.after, page.max))
        return TunnelLeases(leases=leases, complete=complete)

    def _grant(self, tx: Tx, request: Request[Grant]) -> Granted:
        key = LeaseKey(self._controller(request), request.body.lease_id)
        granted = self._book.grant(tx, request.sender, request.body, self._clock())
        machine_key = key_id(request.body.public_key)
        tx.after_commit(lambda: self._server.drop_other_keys(key, machine_key))
        tx.after_commit(self._expiry_changed)
        return granted

    def _revoke(self, tx: Tx, request: Request[Revoke]) -> Empty:
        key = LeaseKey(self._controller(request), request.body.lease_id)
        self._book.revoke(tx, key, self._clock())
        tx.after_commit(lambda: self._server.drop_lease(key))
        return Empty()

    def _reserve(self, tx: Tx, request: Request[Reserve]) -> Granted:
        return self._book.reserve(tx, LeaseKey(self._controller(request), request.body.lease_id), request.body.name)

    def _free(self, tx: Tx, request: Request[Reserve]) -> Granted:
        key = LeaseKey(self._controller(request), request.body.lease_id)
        granted, port = self._book.free(tx, key, request.body.name, self._clock())
        if port is not None:
            tx.after_commit(lambda: self._server.drop_port(port))
        return granted

    def _controller(self, request: Request[B]) -> str:
        if request.sender.fedid not in self._config.controllers:
            raise NotAController("This tunnel server takes leases from the members in its [tunnel] controllers only.")
        return request.sender.fedid
