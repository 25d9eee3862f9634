"""What is done to an experiment's nodes while they run: each lender is asked for its own, all at the same time.

Who does not answer, or cannot, costs nobody else's answer: why not is told of each of its nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from federation_member.experiments.joining import info_of, spec_of
from federation_member.experiments.model import Segment, Whole
from federation_member.orders.engine import Engine
from federation_member.orders.store import load_attempt
from fedkit.errors import FedError
from fedkit.mesh.api import Peer
from fedkit.protocol.segments import Operate, Operated, Operation
from fedkit.store import Database
from fedkit.topology import topdl

NO_NODE = "There is no such node."
NOT_HELD = "No lender has it now."


async def operate(db: Database, engine: Engine, whole: Whole, operation: Operation, nodes: Sequence[str]) -> Operated:
    """Do it to these nodes (none named: all) and tell what came of each."""
    places = {name: segment for segment in whole.segments for name in _nodes(segment)}
    names = list(dict.fromkeys(nodes)) or list(places)
    failed = {name: NO_NODE for name in names if name not in places}
    wanted: dict[int, list[str]] = {}
    for name in names:
        if name in places:
            wanted.setdefault(places[name].number, []).append(name)
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(_ask(db, engine, segment, operation, wanted[segment.number]))
            for segment in whole.segments
            if segment.number in wanted
        ]
    output: dict[str, str] = {}
    for task in asked:
        output |= task.result().output
        failed |= task.result().failed
    return Operated(output=output, failed=failed)


def _nodes(segment: Segment) -> list[str]:
    if segment.order is None:
        return []
    known = [node.name for node in info_of(segment.order).nodes]
    return known or [computer.name for computer in topdl.read(spec_of(segment.order).description.encode()).computers]


async def _ask(db: Database, engine: Engine, segment: Segment, operation: Operation, nodes: Sequence[str]) -> Operated:
    lease_id = None if segment.order is None else segment.order.lease_id
    attempt = None if lease_id is None else await db.read(partial(load_attempt, lease_id=lease_id))
    if attempt is None:
        return Operated(output={}, failed=dict.fromkeys(nodes, NOT_HELD))
    lender = Peer(attempt.attempt.fedid, attempt.attempt.address)
    try:
        body = Operate(lease_id=attempt.lease_id, operation=operation, nodes=list(nodes))
        return await engine.lenders.operate(lender, body)
    except FedError as error:
        return Operated(output={}, failed=dict.fromkeys(nodes, f"{attempt.attempt.member}: {error.message}"))
