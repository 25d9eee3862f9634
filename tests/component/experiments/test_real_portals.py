"""Portals of an experiment on real machines: by what they are joined, what they carry, and what is told of it when they die."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from federation_member.experiments.model import State, Whole
from federation_member.middleware.containers.nodes import client
from federation_member.orders.model import Order
from fedkit.protocol.segments import Operation, SegmentSpec
from tests.component.experiments.test_real_machines import MAKING, base, is_in, lender, site
from tests.component.middleware.contract import eventually
from tests.component.middleware.place import ContainersSite
from tests.component.portal import world
from tests.support.experiments import line
from tests.support.federation import USER, Federation, Member

__all__ = ["base", "site"]

SOMEBODY = bytes.fromhex("ffffffffffff020000000042")
TAGGED = SOMEBODY + bytes.fromhex("8100 0005 88b5") + b"of VLAN 5".ljust(46, b"\0")
NO_IP = SOMEBODY + bytes.fromhex("88b6") + b"no IP".ljust(46, b"\0")
SEND = f"""
import socket, time
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth1", 0))
for _ in range(50):
    for frame in ({TAGGED!r}, {NO_IP!r}):
        out.send(frame)
    time.sleep(0.2)
"""
HEAR = f"""
import socket, sys
ETH_P_ALL, SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = {world.ETH_P_ALL}, {world.SOL_PACKET}, {world.PACKET_AUXDATA}, {world.VLAN_VALID}
{inspect.getsource(world.next_frame)}
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
heard.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
heard.bind(("eth1", 0))
missing = [{TAGGED!r}, {NO_IP!r}]
while missing:
    frame = next_frame(heard)
    missing = [one for one in missing if one != frame]
"""


@dataclass
class Portal:
    """A portal's machine, which nobody but its host enters."""

    folder: Path
    name: str

    @classmethod
    def of(cls, site: ContainersSite, order: Order | None) -> Portal:
        """The one of a piece."""
        assert order is not None
        assert isinstance(order.spec, SegmentSpec)
        return cls(site.state / "instances" / str(order.lease_id), order.spec.connectors[0].name)

    async def does(self, command: str) -> str:
        """What a command prints there."""
        return str((await client.ask(self.folder, do="run", node=self.name, command=command))["output"])

    async def runs_another(self, before: str) -> bool:
        """Whether another program runs there than before."""
        return await self.does("pidof python3") not in (before, "")


async def planes(member: Member, wanted: str) -> list[tuple[bool, str | None]]:
    """Of each portal, whether it is joined and by what."""
    whole: Whole = await member.experiments.get(USER, wanted)
    infos = [segment.order.instance.segment for segment in whole.segments if segment.order and segment.order.instance]
    return [(portal.joined, portal.plane) for info in infos if info is not None for portal in info.portals]


async def at_node(member: Member, wanted: str, node: str, command: str) -> int:
    """How a command ended."""
    done = await member.experiments.operate(USER, wanted, Operation.RUN, [node], command=command)
    return done.status.get(node, -1)


async def reaches(member: Member, wanted: str) -> bool:
    """Whether one node reaches the other through the portals."""
    return await at_node(member, wanted, "n0", "ping -c 1 -w 2 n1") == 0


async def test_pieces_are_joined_by_super_frames_whatever_dies(site: ContainersSite, tmp_path: Path) -> None:
    folder = tmp_path / "tunnel"
    folder.mkdir()
    async with Federation(tmp_path) as federation, lender(federation, site, folder) as a:
        new = line("left", "right", members={"left": "a.test", "right": "a.test"})
        made, _grant, _key = await a.experiments.create(USER, new)
        wanted = made.experiment.id
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)
        assert await planes(a, wanted) == [(True, "superframes")] * 2

        programs = {"n1": HEAR, "n0": SEND}
        ran = (at_node(a, wanted, n, f"timeout 50 python3 - <<'END'\n{text}\nEND\n") for n, text in programs.items())
        assert await asyncio.gather(*ran) == [0, 0]

        for segment in (await a.experiments.get(USER, wanted)).segments:
            portal = Portal.of(site, segment.order)
            bridges, program = await portal.does("ip -o link show type bridge"), await portal.does("pidof python3")
            await portal.does(f"kill -9 {program}")
            await eventually(partial(portal.runs_another, program), MAKING)
            await eventually(partial(reaches, a, wanted), MAKING)
            assert (await portal.does("ip -o link show type bridge"))[:10] == bridges[:10]
        assert (await a.experiments.get(USER, wanted)).experiment.state is State.ACTIVE

        await portal.does("kill -STOP $(pidof python3)")
        await eventually(lambda: is_in(a, wanted, State.JOINING), MAKING)
        await portal.does("kill -CONT $(pidof python3)")
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []
