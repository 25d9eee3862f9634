"""What is done to an experiment's nodes while they run: each lender is asked for its own, all at the same time.

Who does not answer, or cannot, costs nobody else's answer: why not is told of each of its nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from federation_member.experiments.failing import nodes_told
from federation_member.experiments.joining import spec_of
from federation_member.experiments.model import Segment, Whole
from federation_member.orders.engine import Engine
from federation_member.orders.store import load_attempt
from fedkit.errors import FedError
from fedkit.mesh.api import Peer
from fedkit.protocol.segments import OPERATED_LIMIT, Operate, Operated, Operation
from fedkit.store import Database
from fedkit.topology import topdl

NO_NODE = "There is no such node."
NOT_HELD = "No lender has it now."


async def operate(
    db: Database, engine: Engine, whole: Whole, operation: Operation, nodes: Sequence[str], command: str = ""
) -> Operated:
    """Do it to these nodes (none named: all) and tell what came of each; `command` is what `run` runs."""
    places = {name: segment for segment in whole.segments for name in _nodes(segment)}
    names = list(dict.fromkeys(nodes)) or list(places)
    failed = {name: NO_NODE for name in names if name not in places}
    wanted: dict[int, list[str]] = {}
    for name in names:
        if name in places:
            wanted.setdefault(places[name].number, []).append(name)
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(_ask(db, engine, segment, operation, wanted[segment.number], command))
            for segment in whole.segments
            if segment.number in wanted
        ]
    return _sum([Operated(output={}, failed=failed), *(task.result() for task in asked)])


def _sum(parts: Sequence[Operated]) -> Operated:
    whole = Operated(output={})
    for part in parts:
        whole.output.update(part.output)
        whole.failed.update(part.failed)
        whole.status.update(part.status)
    return whole


def _nodes(segment: Segment) -> list[str]:
    if segment.order is None:
        return []
    known = [node.name for node in nodes_told(segment.order)]
    return known or [computer.name for computer in topdl.read(spec_of(segment.order).description.encode()).computers]


async def _ask(
    db: Database, engine: Engine, segment: Segment, operation: Operation, nodes: Sequence[str], command: str
) -> Operated:
    """Ask the lender of a segment, of a few nodes at a time, because that is how much one request carries."""
    lease_id = None if segment.order is None else segment.order.lease_id
    attempt = None if lease_id is None else await db.read(partial(load_attempt, lease_id=lease_id))
    if attempt is None:
        return Operated(output={}, failed=dict.fromkeys(nodes, NOT_HELD))
    lender = Peer(attempt.attempt.fedid, attempt.attempt.address)
    done = []
    for start in range(0, len(nodes), OPERATED_LIMIT):
        some = list(nodes[start : start + OPERATED_LIMIT])
        body = Operate(lease_id=attempt.lease_id, operation=operation, nodes=some, command=command)
        try:
            done.append(await engine.lenders.operate(lender, body))
        except FedError as error:
            reason = f"{attempt.attempt.member}: {error.message}"
            done.append(Operated(output={}, failed=dict.fromkeys(some, reason)))
    return _sum(done)
