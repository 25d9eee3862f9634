"""`rtproto` on real nodes of two testbeds: where daemons find the ways, traffic goes another one when a link goes; static ways stay.

n0 ── near ── portals ── n1 ── beyond ── n3          n0 and n2 are at the left, n1 and n3 at the right
 └─ one ── n2 ── other ── portals ──┘
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from deploy.image.build import FOR_EXPERIMENTS, PLACE, build
from federation_member.experiments.model import NewExperiment, State
from fedkit.protocol.segments import Operation
from tests.component.experiments.test_real_machines import MAKING, is_in, lender
from tests.component.middleware.contract import eventually
from tests.component.middleware.place import ContainersSite, lacks_to_carry, network_namespace
from tests.support.federation import USER, Federation, Member

PROGRAM = """
set ns [new Simulator]
source tb_compat.tcl
foreach {name testbed} {n0 left n1 right n2 left n3 right} {
    set $name [$ns node]
    tb-set-node-testbed [set $name] $testbed
}
set near [$ns duplex-link $n0 $n1 100Mb 0ms DropTail]
set one [$ns duplex-link $n0 $n2 100Mb 0ms DropTail]
set other [$ns duplex-link $n2 $n1 100Mb 0ms DropTail]
set beyond [$ns duplex-link $n1 $n3 100Mb 0ms DropTail]
$ns rtproto ROUTING
$ns run
"""
UNDO = """python3 /usr/local/federation/kit.pyz undo
grep -qw 20 /proc/net/route || pidof zebra ospfd || echo undone"""
FOUND = "grep -qw 20 /proc/net/route"  # the metric of what zebra sets
CUT = """address=$(grep -w n1-near /etc/hosts | cut -d ' ' -f 1)
ip link set dev "$(ip -o -4 address show | grep -F " $address/" | sed 's/^[0-9]*: *\\([^ ]*\\) .*/\\1/')" down"""
pytestmark = [pytest.mark.root, pytest.mark.timeout(500)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ContainersSite]:
    """A site whose image has FRR."""
    if (lacking := lacks_to_carry()) is not None:
        pytest.skip(lacking)
    image = build(PLACE / "testbed", contents=FOR_EXPERIMENTS)  # which asks for packages, and there are none in there
    with network_namespace():
        site = ContainersSite(image, tmp_path / "state")
        yield site
        site.clear()


async def ran(member: Member, wanted: str, node: str, command: str) -> str:
    """What a command prints on a node."""
    done = await member.experiments.operate(USER, wanted, Operation.RUN, [node], command=command)
    return done.output.get(node, "")


async def reaches(member: Member, wanted: str) -> bool:
    """Whether the first node reaches the last one now."""
    return "1 packets received" in await ran(member, wanted, "n0", "ping -c 1 -w 2 n3")


async def has_found(member: Member, wanted: str) -> bool:
    """Whether every node has ways of which daemons told it."""
    done = await member.experiments.operate(USER, wanted, Operation.RUN, [], command=FOUND)
    return set(done.status.values()) == {0}


async def test_session_goes_another_way_and_static_does_not(site: ContainersSite, tmp_path: Path) -> None:
    (folder := tmp_path / "tunnel").mkdir()
    async with Federation(tmp_path) as world, lender(world, site, folder) as a:
        members, made = {"left": "a.test", "right": "a.test"}, []
        for routing in ("Session", "Static"):
            text = PROGRAM.replace("ROUTING", routing)
            new = NewExperiment(name=routing.lower(), description=text, file="ways.ns", members=members)
            made.append((await a.experiments.create(USER, new))[0].experiment.id)
        session, static = made
        for wanted in made:
            await eventually(partial(is_in, a, wanted, State.ACTIVE), MAKING)
            await eventually(partial(reaches, a, wanted), MAKING)
        await eventually(partial(has_found, a, session), MAKING)
        assert not await has_found(a, static)
        for wanted in made:
            await ran(a, wanted, "n1", CUT)
        await eventually(partial(reaches, a, session), MAKING)
        assert not await reaches(a, static)
        assert await ran(a, session, "n0", UNDO) == "undone\n"
        for wanted in made:
            await a.experiments.terminate(USER, wanted)
        for wanted in made:
            await eventually(partial(is_in, a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []
