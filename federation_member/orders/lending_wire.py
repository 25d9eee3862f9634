"""The lender's end of the wire: requests of borrowers, and what the tunnel server answers and reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from pydantic import ValidationError

from federation_member.errors import NotAllowed
from federation_member.orders.leases import LIVE, Lease
from federation_member.orders.lending import Lending
from federation_member.orders.tunnels import Tunnels
from fedkit.errors import RemoteError
from fedkit.mesh.api import Mesh, Outcome, Request
from fedkit.protocol import Empty
from fedkit.protocol.lending import (
    LeaseChange,
    LeaseCreate,
    LeaseRelease,
    LeaseState,
    LeaseSync,
    LeaseSynced,
    LeaseView,
    Offer,
    TunnelClose,
    TunnelOpen,
)
from fedkit.protocol.tunnel import Granted
from fedkit.store import Database, Tx

log = structlog.get_logger()


class LendingWire:
    """Serves the lender's operations."""

    def __init__(self, db: Database, lending: Lending, tunnels: Tunnels, offer: Callable[[], Awaitable[Offer]]) -> None:
        self._db = db
        self._lending = lending
        self._tunnels = tunnels
        self._offer = offer

    def serve(self, mesh: Mesh) -> None:
        """Register with the mesh."""
        mesh.on_command("lease.create", LeaseCreate, self._create)
        mesh.on_command("lease.release", LeaseRelease, self._release)
        mesh.on_command("lease.change", LeaseChange, self._change)
        mesh.on_command("tunnel.open", TunnelOpen, self._open_tunnel)
        mesh.on_command("tunnel.close", TunnelClose, self._close_tunnel)
        mesh.on_query("lease.sync", LeaseSync, self._sync)
        mesh.on_query("offer.get", Empty, self._get_offer)
        mesh.on_answer("tunnel.grant", self._grant_answered)
        mesh.on_answer("tunnel.reserve", self._port_answered)
        mesh.on_answer("tunnel.free", self._port_answered)
        mesh.on_command("tunnel.changed", Granted, self._tunnel_changed)

    def _create(self, tx: Tx, request: Request[LeaseCreate]) -> LeaseView:
        return self._lending.create(tx, request.sender, request.body)

    def _release(self, tx: Tx, request: Request[LeaseRelease]) -> LeaseView:
        return self._lending.release(tx, request.sender, request.body)

    def _change(self, tx: Tx, request: Request[LeaseChange]) -> LeaseView:
        return self._lending.wish(tx, request.sender, request.body)

    def _open_tunnel(self, tx: Tx, request: Request[TunnelOpen]) -> LeaseView:
        return self._lending.open_tunnel(tx, request.sender, request.body)

    def _close_tunnel(self, tx: Tx, request: Request[TunnelClose]) -> LeaseView:
        return self._lending.close_tunnel(tx, request.sender, request.body)

    async def _sync(self, request: Request[LeaseSync]) -> LeaseSynced:
        return await self._db.run(lambda tx: self._lending.sync(tx, request.sender, request.body))

    async def _get_offer(self, _request: Request[Empty]) -> Offer:
        return await self._offer()

    # The tunnel server

    def _grant_answered(self, tx: Tx, outcome: Outcome) -> None:
        if outcome.error is None:
            self._heard(tx, outcome)
            return
        lease_id = str(outcome.sent["lease_id"])
        lease = self._lending.locked(tx, lease_id)
        if lease is None and self._tunnels.others is not None:
            self._tunnels.others.refused(tx, lease_id, outcome.error)
        if lease is None or lease.state not in LIVE or lease.tunnel is None:
            return
        if outcome.error.code.startswith("mesh."):  # it never heard of it: say it again
            self._tunnels.grant(tx, lease)
        elif lease.tunnel.revision == 0:
            self._fail(tx, lease, outcome.error)
        else:
            log.error("tunnel_not_renewed", lease=lease.id, code=outcome.error.code, reason=outcome.error.message)

    def _fail(self, tx: Tx, lease: Lease, error: RemoteError) -> None:
        """A machine that nobody can reach is not what was asked for."""
        now = self._lending.now()
        self._lending.change(
            tx, lease, state=LeaseState.FAILING, code=error.code, reason=f"tunnel: {error.message}", due=now
        )

    def _port_answered(self, tx: Tx, outcome: Outcome) -> None:
        if outcome.error is None:
            self._heard(tx, outcome)
            return
        lease = self._lending.locked(tx, str(outcome.sent["lease_id"]))
        if lease is not None and lease.state in LIVE:
            reason = f"tunnel {outcome.sent['name']}: {outcome.error.message}"
            self._lending.change(tx, lease, code=outcome.error.code, reason=reason)

    def _tunnel_changed(self, tx: Tx, request: Request[Granted]) -> Empty:
        if not self._tunnels.is_server(request.sender):
            raise NotAllowed("You are not the tunnel server of this member.")
        self._apply(tx, request.body)
        return Empty()

    def _heard(self, tx: Tx, outcome: Outcome) -> None:
        try:
            granted = Granted.model_validate(outcome.answer)
        except ValidationError:
            log.exception("tunnel_server_answers_garbage", operation=outcome.operation)
            return
        if granted.lease_id == outcome.sent["lease_id"]:
            self._apply(tx, granted)

    def _apply(self, tx: Tx, granted: Granted) -> None:
        lease = self._lending.locked(tx, granted.lease_id)
        if lease is None and self._tunnels.others is not None:
            self._tunnels.others.granted(tx, granted)
        if lease is None or lease.tunnel is None or granted.revision < lease.tunnel.revision:
            return
        tunnel = replace(lease.tunnel, revision=max(granted.revision, 1))
        tunnels = tuple(granted.tunnels)
        if lease.segment is not None and lease.state in LIVE:  # it tells of it by its nodes
            self._lending.change(tx, lease, tell=False, tunnel=tunnel, tunnels=tunnels, due=self._lending.now())
        elif lease.state is LeaseState.ACCEPTED and lease.instance is not None:  # it only waited for this
            self._lending.made(tx, lease, tunnel=tunnel, tunnels=tunnels)
        elif lease.state in LIVE:
            tell = tunnels != lease.tunnels
            self._lending.change(tx, lease, tell=tell, tunnel=tunnel, tunnels=tunnels, code="", reason="")
