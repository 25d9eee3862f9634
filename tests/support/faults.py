"""What can go wrong with one member while others have experiments there: each operation of a segment, in each way.

    fault = Fault(world, victim, "join", "hangs")
    fault.begin()            from now on; or `await fault.strike()`, which also waits for the moment to kill and kills
    await fault.end()        all is well again; what died is started

`access` is asking for a lease, `wires` and `nodes` the making of networks and machines, `join` that of portals, `info` what a
lender tells of what runs, `terminate` the deletion at the cloud. A member that is killed dies when that begins.
"""

from __future__ import annotations

import asyncio
from typing import Any

from federation_member.errors import NotLent
from federation_member.middleware.contract import (
    ComputeRequest,
    MiddlewareError,
    NoCapacity,
    NodeRequest,
    PortalRequest,
    Unavailable,
)
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import LeaseCreate, LeaseView
from fedkit.store import Tx
from tests.support.federation import Federation, Member
from tests.support.memory_network import Deliveries, Packet

OPERATIONS = ["access", "wires", "nodes", "join", "info", "terminate"]
WAYS = ["fails", "hangs", "is killed"]
PORTAL = "PEER_KEY="  # stands in the user data of portals


def kind_of(request: object) -> str:
    """Which operation it is to make this; a segment that is made as a whole begins with its wires."""
    if isinstance(request, ComputeRequest):
        return "join" if PORTAL in request.spec.user_data else "nodes"
    return "join" if isinstance(request, PortalRequest) else "nodes" if isinstance(request, NodeRequest) else "wires"


class Fault:
    """One operation of one member goes wrong in one way."""

    def __init__(self, world: Federation, victim: Member, operation: str, way: str) -> None:
        self.world = world
        self.victim = victim
        self.operation = operation
        self.way = way
        self.struck = asyncio.Event()  # the operation was tried
        self._healed = asyncio.Event()

    def begin(self) -> None:
        """From now on it goes wrong."""
        if self.operation == "access":
            lending = self.victim.orders.engine.lending
            self._create = lending.create
            lending.create = self._refuse  # type: ignore[method-assign]
        if self.operation == "access" and self.way != "fails":
            self.world.network.faults = self._lose_requests
        elif self.operation == "info":
            self.world.network.faults = self._lose_news
        self.victim.cloud.before = self._meddle

    async def strike(self) -> None:
        """Begin, and kill who is to die as soon as it is at it."""
        self.begin()
        if self.way == "is killed":
            if self.operation != "info":
                await self.struck.wait()
            await self.victim.kill()

    async def end(self) -> None:
        """It goes well again."""
        self._healed.set()
        self.world.network.faults = lambda packet: [(0.0, packet)]
        self.victim.cloud.before = None
        if not self.victim.running:
            await self.victim.start()
        elif self.operation == "access":
            self.victim.orders.engine.lending.create = self._create  # type: ignore[method-assign]

    # At the cloud

    async def _meddle(self, call: str, request: object) -> None:
        if call == {"terminate": "delete", "info": "get"}.get(self.operation, "create") and (
            self.operation in ("terminate", "info", kind_of(request))
        ):
            await self._go_wrong(NoCapacity("It is full.") if call == "create" else Unavailable("It is not there."))

    async def _go_wrong(self, error: MiddlewareError) -> None:
        self.struck.set()
        if self.way == "fails":
            raise error
        await self._healed.wait()

    # On the way

    def _refuse(self, tx: Tx, borrower: Peer, body: LeaseCreate) -> LeaseView:
        self.struck.set()
        if self.way == "fails":
            raise NotLent("It lends nothing today.")
        return self._create(tx, borrower, body)

    def _lose_requests(self, packet: Packet) -> Deliveries:
        """Whoever asks it for something hears nothing."""
        if packet.target != self.victim.address or packet.reply:
            return [(0.0, packet)]
        self.struck.set()
        return []

    def _lose_news(self, packet: Packet) -> Deliveries:
        """What it says of what it lent is lost, or, if it fails, what is asked of it as well."""
        lost: dict[str, Any] = {"fails": packet.target == self.victim.address}
        return [] if packet.source == self.victim.address or lost.get(self.way, False) else [(0.0, packet)]
