"""The fault campaign: each operation fails, hangs or is killed at each testbed, for each failure action.

Three experiments run at once over the same members; they differ in what the failure of the victim's node means. While the
fault lasts each is as its failure action demands; when it is over, what was lost and may come back does; and at any time that nothing
is under way what the clouds hold, what the lenders' books hold and what the home's book holds are the same. All in virtual time.
"""

from __future__ import annotations

import asyncio
from itertools import product

import pytest

from federation_member.experiments.errors import Why
from federation_member.experiments.model import FINAL, Experiment, State
from tests.support.experiments import books_agree, line, nothing_left, sites, until
from tests.support.faults import OPERATIONS, WAYS, Fault
from tests.support.federation import USER, Federation, Member, in_virtual_time

ACTIONS = ["fatal", "nonfatal", "ignore"]
TESTBEDS = ["h", "a"]  # the home's own, and another's; a third would be as the second
LONG = 1500.0  # seconds: until every lease of a lender that is away has ended
CALL = 200.0  # seconds: longer than a call to a cloud may take
WHOLE = "everything runs and is joined"


async def make(home: Member, victim: str) -> None:
    """An experiment for each failure action, named after it, unless there is one."""
    node, there = f"n{TESTBEDS.index(victim)}", await states(home)
    for action in [action for action in ACTIONS if action not in there]:
        new = line("h.test", "a.test", name=action, nodes={node: {"failureaction": action}})
        await home.experiments.create(USER, new)


async def states(home: Member) -> dict[str, Experiment]:
    """How each experiment is."""
    return {one.name: one for one in await home.experiments.page(USER)}


async def shows_the_loss(home: Member, victim: str) -> None:
    """Fatal undid all; nonfatal is reported; ignore is silent."""
    found = await states(home)
    assert found["fatal"].state in (State.FAILED, State.TERMINATING), found
    assert found["fatal"].code not in ("", Why.ENDED)
    assert (found["nonfatal"].state, found["nonfatal"].code) == (State.ACTIVE, Why.INCOMPLETE), found
    node = f"n{TESTBEDS.index(victim)}"
    assert f"{victim}.test" in found["nonfatal"].reason or node in found["nonfatal"].reason
    log = await home.experiments.log(USER, "nonfatal")
    assert any(event.code == Why.INCOMPLETE for event in log)
    assert (found["ignore"].state, found["ignore"].code, found["ignore"].reason) == (State.ACTIVE, "", WHOLE), found


async def goes_on(home: Member, *names: str) -> None:
    """These are whole, or become so."""
    for name in names:
        await until(home, name, State.ACTIVE, where=lambda one: one.reason == WHOLE)


def is_lost(operation: str, way: str, victim: str) -> bool:
    """Whether the fault costs the segment, or its node; who dies and comes back goes on instead."""
    if operation == "info" or (operation, way) == ("access", "is killed"):
        return victim != "h"  # the home hears of itself, whatever the network does
    return operation != "terminate" and way != "is killed"


def comes_back(operation: str) -> bool:
    """Whether what is lost is had again when all is well; what ran once or was promised at a fixed place is not."""
    return operation == "access"


FAULTS = sorted(set(product(OPERATIONS, WAYS, TESTBEDS)) - {("access", "hangs", "h")})  # asking oneself does not hang


@pytest.mark.parametrize(("operation", "way", "victim"), FAULTS)
@in_virtual_time
async def test_whatever_goes_wrong(world: Federation, operation: str, way: str, victim: str) -> None:
    await campaign(world, operation, way, victim, hosts=False)


@pytest.mark.parametrize(
    ("operation", "way", "victim"), [fault for fault in FAULTS if fault[0] not in ("access", "info")]
)
@in_virtual_time
async def test_whatever_goes_wrong_where_segments_are_run_as_a_whole(
    world: Federation, operation: str, way: str, victim: str
) -> None:
    await campaign(world, operation, way, victim, hosts=True)


async def campaign(world: Federation, operation: str, way: str, victim: str, *, hosts: bool) -> None:
    """One fault in the lives of three experiments; `hosts`: the clouds run segments as a whole."""
    async with sites(world, *TESTBEDS, hosts=hosts) as members:
        home, culprit = members[0], members[TESTBEDS.index(victim)]
        fault = Fault(world, culprit, operation, way)
        if operation in ("info", "terminate"):
            await make(home, victim)
            await goes_on(home, *ACTIONS)
            assert all((member.cloud.segments != {}) == hosts for member in members)
        striking = asyncio.create_task(fault.strike())
        await asyncio.sleep(0)
        if operation == "terminate":
            for name in ACTIONS:
                await home.experiments.terminate(USER, name)
        elif operation != "info":
            making = asyncio.create_task(make(home, victim))
            await asyncio.wait([making])  # whoever asks a home that dies hears nothing
        await striking
        lost = is_lost(operation, way, victim)
        if lost:
            await asyncio.sleep(LONG if operation == "info" or hosts else CALL)
            await shows_the_loss(home, victim)
        elif culprit.running:
            await asyncio.sleep(CALL)
        else:
            await asyncio.sleep(0 if victim == "h" else 20)
        await fault.end()
        if operation != "terminate":
            await make(home, victim)
            await goes_on(home, *(ACTIONS if not lost else ["ignore"]))
            if lost and comes_back(operation):
                await goes_on(home, "nonfatal")
            await books_agree(*members)
        for name in ACTIONS:
            await home.experiments.terminate(USER, name)
        for name in ACTIONS:
            whole = await until(home, name, *FINAL)
            assert (whole.experiment.state is State.FAILED) == (lost and name == "fatal"), whole.experiment
        await nothing_left(*members)
        await books_agree(*members)
