"""What can be done to the nodes of a segment while it runs: stop, start and reboot them, run a command, look at their consoles.

A stop or start is a wish in the child's row, like that of any machine's user; the keeper makes it so and the segment's next news
tell of it. Commands run over a node's own tunnel, with the key that the lender made for the segment; a reboot is one of them,
for machines that have a kernel to start anew. What cannot be done to one node is told of that node and hinders no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from federation_member.errors import Cannot, NotRunning
from federation_member.middleware.console import OCTETS, last_of
from federation_member.middleware.contract import HostsSegments
from federation_member.orders import leases, wishes
from federation_member.orders.leases import LIVE, Lease
from federation_member.orders.lending import Lending
from federation_member.orders.ownership import borrowed
from federation_member.orders.segments.plan import NODE
from federation_member.orders.segments.remote import Hands, Place, Said
from federation_member.orders.segments.summary import control_way
from fedkit.errors import FedError
from fedkit.mesh.api import Mesh, Peer, Request
from fedkit.protocol.lending import LeaseChange, LeaseState, Offer, Power
from fedkit.protocol.segments import OPERATED_LIMIT, RUN_LIMIT, Operate, Operated, Operation
from fedkit.store import Database, Tx

BATCH = 20  # nodes that one transaction changes
AT_ONCE = 16  # commands that run at the same time, whoever asked
NAME_SIZE = 128  # octets of an answer that a node's name takes, at most
POWERS = {Operation.STOP: Power.STOPPED, Operation.START: Power.RUNNING}
CONTAINER = "This machine is a container: it has no kernel to start anew, and its disk lives only as long as it runs."
FIRST_PID_NAMESPACE = (
    "pid:[4026531836]"  # include/linux/proc_ns.h, PROC_PID_INIT_INO: of machines with a kernel of their own
)
REBOOT = f"""[ "$(readlink /proc/self/ns/pid)" = "{FIRST_PID_NAMESPACE}" ] || {{ echo "{CONTAINER}"; exit 1; }}
(sleep 1; reboot || reboot -f) </dev/null >/dev/null 2>&1 &"""

Answer = str | Said | FedError
T = TypeVar("T")


@dataclass(frozen=True)
class Nodes:
    """The machines of a segment by name, and its lender's key to them."""

    machines: Mapping[str, Lease]
    key: str


class Operator:
    """Does what the borrowers of segments ask; `console` reads a machine's by its lease id, `hands` run commands in it."""

    def __init__(
        self,
        db: Database,
        lending: Lending,
        console: Callable[[str], Awaitable[str]],
        offer: Callable[[], Offer],
        hands: Hands,
        host: HostsSegments | None = None,
    ) -> None:
        self._db = db
        self._lending = lending
        self._console = console
        self._offer = offer
        self._hands = hands
        self._host = host
        self._places = asyncio.Semaphore(AT_ONCE)

    def serve(self, mesh: Mesh) -> None:
        """Register with the mesh."""
        mesh.on_query("segment.operate", Operate, self._operate)

    async def _operate(self, request: Request[Operate]) -> Operated:
        return await self.operate(request.sender, request.body)

    async def operate(self, borrower: Peer, body: Operate) -> Operated:
        """Do it to each of the nodes; raises `UnknownLease`, `NotRunning` or `Cannot` where that holds for all of them."""
        lease = await self._db.read(lambda conn: _segment_of(conn, borrower, body.lease_id))
        if lease.segment is not None and lease.segment.hosted and self._host is not None:
            return await self._at_host(self._host, lease, body)
        nodes = await self._db.read(lambda conn: _nodes(conn, lease))
        names = body.nodes or list(nodes.machines)
        failed = {name: _why_not(nodes.machines.get(name)) for name in names}
        able = {name: nodes.machines[name] for name, problem in failed.items() if not problem}
        failed = {name: problem for name, problem in failed.items() if problem}
        if body.operation in POWERS:
            return await self._set_power(able, POWERS[body.operation], failed)
        if len(able) > OPERATED_LIMIT:
            raise Cannot(f"At most {OPERATED_LIMIT} nodes are asked at once; name fewer.")
        if body.operation is Operation.CONSOLE:
            wishes.check_console("compute", self._offer().abilities)
            return await _each(able, lambda lease: self._read(lease.id), failed)
        command = REBOOT if body.operation is Operation.REBOOT else body.command
        done = await _each(able, partial(self._run, nodes.key, command), failed)
        return _rebooted(done) if body.operation is Operation.REBOOT else done

    # Where the middleware runs segments as a whole

    async def _at_host(self, host: HostsSegments, lease: Lease, body: Operate) -> Operated:
        info = lease.instance.segment if lease.instance is not None else None
        there = {node.name: lease for node in info.nodes} if info is not None else {}
        names = body.nodes or list(there)
        failed = {name: _why_not(None) for name in names if name not in there}
        able = {name: name for name in names if name in there}
        if len(able) > OPERATED_LIMIT:
            raise Cannot(f"At most {OPERATED_LIMIT} nodes are asked at once; name fewer.")

        async def ask(name: str) -> Answer:
            try:
                async with asyncio.timeout(RUN_LIMIT), self._places:
                    printed = await host.operate(lease.id, body.operation, name, body.command)
            except FedError as error:
                return error
            except TimeoutError:
                return Cannot(f"It took longer than {RUN_LIMIT:g} s, and was not waited for.")
            return Said(printed.text, printed.status) if body.operation is Operation.RUN else printed.text

        return await _each(able, ask, failed)

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

    # What nodes say

    async def _read(self, lease_id: str) -> str | FedError:
        try:
            return await self._console(lease_id)
        except FedError as error:
            return error

    async def _run(self, key: str, command: str, lease: Lease) -> Said | FedError:
        host, port = control_way(lease)
        if not key or host is None or port is None or lease.instance is None:
            return Cannot("Its lender has no way to it.")
        try:
            async with asyncio.timeout(RUN_LIMIT), self._places:
                return await self._hands.run(Place(host, port, lease.instance.host_keys, key), command)
        except FedError as error:
            return error
        except TimeoutError:
            return Cannot(f"It took longer than {RUN_LIMIT:g} s, and was not waited for.")


async def _each(
    machines: Mapping[str, T], ask: Callable[[T], Coroutine[Any, Any, Answer]], failed: dict[str, str]
) -> Operated:
    """Ask all at the same time; what they say has to fit one answer together."""
    share = OCTETS // max(len(machines) + len(failed), 1) - NAME_SIZE
    async with asyncio.TaskGroup() as group:
        asked = {name: group.create_task(ask(lease)) for name, lease in machines.items()}
    output: dict[str, str] = {}
    status: dict[str, int] = {}
    problems = dict(failed)
    for name, task in asked.items():
        answer = task.result()
        if isinstance(answer, FedError):
            problems[name] = last_of(answer.message, share)
            continue
        output[name] = last_of(answer if isinstance(answer, str) else answer.text, share)
        if isinstance(answer, Said):
            status[name] = answer.status
    return Operated(output=output, failed=problems, status=status)


def _rebooted(done: Operated) -> Operated:
    """A node that said no has not been rebooted."""
    refused = {name: done.output[name] for name, status in done.status.items() if status}
    output = {name: "" for name in done.output if name not in refused}
    return Operated(output=output, failed=done.failed | refused)


def _segment_of(conn: Connection, borrower: Peer, lease_id: str) -> Lease:
    """Somebody's segment that has nodes; raises `UnknownLease`, `NotRunning` or `Cannot`."""
    lease = borrowed(leases.load(conn, lease_id), borrower)
    if lease.segment is None:
        raise Cannot("Nodes of segments alone can be operated so.")
    if lease.state not in LIVE or not lease.segment.started:
        raise NotRunning(f"The segment is {lease.state.value} and has no nodes.")
    return lease


def _nodes(conn: Connection, lease: Lease) -> Nodes:
    """The machines of a segment that have not ended."""
    machines = {
        child.part.removeprefix(NODE): child
        for child in leases.children(conn, lease.id).values()
        if child.state in LIVE and child.part.startswith(NODE)
    }
    return Nodes(machines, "" if lease.segment is None else lease.segment.control)


def _why_not(lease: Lease | None) -> str:
    """Why nothing can be done to a node now; empty if it can."""
    if lease is None:
        return "There is no such node here, or it has failed."
    return "" if lease.state is LeaseState.RUNNING else "It does not run yet."
