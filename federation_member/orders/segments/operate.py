"""What can be done to the nodes of a segment while it runs: stop, start, and look at their consoles.

A stop or start is a wish in the child's row, like that of any machine's user; the keeper makes it so and the segment's next news
tell of it. What cannot be done to one node is told of that node and hinders no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from sqlalchemy import Connection

from federation_member.errors import Cannot, NotRunning
from federation_member.orders import leases, wishes
from federation_member.orders.leases import LIVE, Lease
from federation_member.orders.lending import Lending, borrowed
from federation_member.orders.segments.plan import NODE
from fedkit.errors import FedError
from fedkit.mesh.api import Mesh, Peer, Request
from fedkit.protocol.lending import LeaseChange, LeaseState, Offer, Power
from fedkit.protocol.segments import Operate, Operated, Operation
from fedkit.store import Database, Tx

BATCH = 20  # nodes that one transaction changes
CONSOLES_LIMIT = 64  # nodes that one request may look at
CONSOLES_SIZE = 64 * 1024  # characters that are told of all of them together
POWERS = {Operation.STOP: Power.STOPPED, Operation.START: Power.RUNNING}


class Operator:
    """Does what the borrowers of segments ask; `console` reads a machine's by its lease id."""

    def __init__(
        self, db: Database, lending: Lending, console: Callable[[str], Awaitable[str]], offer: Callable[[], Offer]
    ) -> None:
        self._db = db
        self._lending = lending
        self._console = console
        self._offer = offer

    def serve(self, mesh: Mesh) -> None:
        """Register with the mesh."""
        mesh.on_query("segment.operate", Operate, self._operate)

    async def _operate(self, request: Request[Operate]) -> Operated:
        return await self.operate(request.sender, request.body)

    async def operate(self, borrower: Peer, body: Operate) -> Operated:
        """Do it to each of the nodes; raises `UnknownLease`, `NotRunning` or `Cannot` where that holds for all of them."""
        parts = await self._db.read(lambda conn: _parts(conn, borrower, body.lease_id))
        machines = {part.removeprefix(NODE): lease for part, lease in parts.items() if part.startswith(NODE)}
        names = body.nodes or list(machines)
        failed = {name: _why_not(machines.get(name)) for name in names}
        able = {name: machines[name] for name, problem in failed.items() if not problem}
        failed = {name: problem for name, problem in failed.items() if problem}
        if body.operation in POWERS:
            return await self._set_power(able, POWERS[body.operation], failed)
        if body.operation is Operation.CONSOLE:
            return await self._consoles(able, failed)
        raise Cannot(f"This member cannot {body.operation.value} the nodes of a segment; it can stop and start them.")

    # Power

    async def _set_power(self, machines: dict[str, Lease], power: Power, failed: dict[str, str]) -> Operated:
        wanted = LeaseChange(lease_id=next(iter(machines.values())).id, power=power) if machines else None
        if wanted is not None:
            wishes.check("compute", wanted, self._offer().abilities)
            names = list(machines)
            for start in range(0, len(names), BATCH):
                ids = [machines[name].id for name in names[start : start + BATCH]]
                await self._db.run(partial(self._wish, ids=ids, wanted=wanted))
        return Operated(output=dict.fromkeys(machines, ""), failed=failed)

    def _wish(self, tx: Tx, ids: list[str], wanted: LeaseChange) -> None:
        for lease_id in sorted(ids):  # sorted: locks are taken in one order
            lease = leases.load(tx.conn, lease_id, lock=True)
            if lease is not None and lease.state is LeaseState.RUNNING:
                wishing = lease.wishes.and_then(wanted)
                self._lending.change(tx, lease, wishes=wishing, due=self._lending.now(), code="", reason="")

    # Consoles

    async def _consoles(self, machines: dict[str, Lease], failed: dict[str, str]) -> Operated:
        wishes.check_console("compute", self._offer().abilities)
        if len(machines) > CONSOLES_LIMIT:
            raise Cannot(f"At most {CONSOLES_LIMIT} consoles are shown at once; name fewer nodes.")
        share = CONSOLES_SIZE // max(len(machines), 1)
        async with asyncio.TaskGroup() as group:
            asked = {name: group.create_task(self._read(lease.id)) for name, lease in machines.items()}
        found = {name: task.result() for name, task in asked.items()}
        output = {name: text[-share:] for name, text in found.items() if isinstance(text, str)}
        problems = {name: error.message for name, error in found.items() if isinstance(error, FedError)}
        return Operated(output=output, failed=failed | problems)

    async def _read(self, lease_id: str) -> str | FedError:
        try:
            return await self._console(lease_id)
        except FedError as error:
            return error


def _parts(conn: Connection, borrower: Peer, lease_id: str) -> dict[str, Lease]:
    """The children of somebody's segment that have not ended; raises `UnknownLease`, `NotRunning` or `Cannot`."""
    lease = borrowed(leases.load(conn, lease_id), borrower)
    if lease.segment is None:
        raise Cannot("Nodes of segments alone can be operated so.")
    if lease.state not in LIVE or not lease.segment.started:
        raise NotRunning(f"The segment is {lease.state.value} and has no nodes.")
    return {child.part: child for child in leases.children(conn, lease_id).values() if child.state in LIVE}


def _why_not(lease: Lease | None) -> str:
    """Why nothing can be done to a node now; empty if it can."""
    if lease is None:
        return "There is no such node here, or it has failed."
    return "" if lease.state is LeaseState.RUNNING else "It does not run yet."
