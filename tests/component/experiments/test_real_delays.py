"""A link between testbeds is as late and lossy as its description says, on real machines and whatever their kernel can do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation_member.experiments.model import NewExperiment, State
from fedkit.protocol.segments import Operation
from tests.component.experiments.test_real_machines import MAKING, is_in, lender
from tests.component.middleware.conftest import base, site
from tests.component.middleware.contract import eventually
from tests.component.middleware.place import ContainersSite
from tests.support.federation import USER, Federation, Member

__all__ = ["base", "site"]

PROGRAM = """\
source tb_compat.tcl
set ns [new Simulator]
foreach name {a b} {
    set $name [$ns node]
}
set late [$ns duplex-link $a $b 10Mb 20ms DropTail]
tb-set-node-testbed $a left
tb-set-node-testbed $b right
set c [$ns node]
set lossy [$ns duplex-link $a $c 10Mb 0ms DropTail]
tb-set-link-loss $lossy 0.5
tb-set-node-testbed $c right
$ns run
"""
PINGS = 60
pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]


async def said(a: Member, wanted: str, command: str) -> str:
    """What a command prints at the node `a`."""
    return (await a.experiments.operate(USER, wanted, Operation.RUN, ["a"], command=command)).output["a"]


async def test_a_link_between_testbeds_is_as_it_is_described(site: ContainersSite, tmp_path: Path) -> None:
    (folder := tmp_path / "tunnel").mkdir()
    async with Federation(tmp_path) as world, lender(world, site, folder) as a:
        members = {"left": "a.test", "right": "a.test"}
        made, _grant, _key = await a.experiments.create(
            USER, NewExperiment(name="late", description=PROGRAM, members=members)
        )
        wanted = made.experiment.id
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)

        async def answers() -> bool:
            return " time=" in await said(a, wanted, "ping -c 1 -w 5 b")

        await eventually(answers, MAKING)
        times = re.findall("time=([0-9.]+)", await said(a, wanted, "ping -c 5 -w 15 b"))
        assert min(map(float, times)) >= 40  # ms: 20 there, 20 back

        async def some_arrive() -> bool:
            return " time=" in await said(a, wanted, "ping -c 5 -W 1 c")

        await eventually(some_arrive, MAKING)
        lossy = await said(a, wanted, f"ping -c {PINGS} -i 0.1 -W 1 c")
        assert f"{PINGS} packets transmitted" in lossy
        assert lossy.count(" time=") < PINGS * 0.6  # a quarter comes back
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []
