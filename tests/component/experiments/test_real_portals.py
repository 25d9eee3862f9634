"""Portals of an experiment on real machines: by what they are joined, what they carry, and what is told when they die or change."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from federation_member.experiments.failing import nodes_told
from federation_member.experiments.model import State, Whole
from federation_member.middleware.containers.nodes import client
from fedkit.protocol.segments import SegmentSpec
from tests.component.experiments.test_real_machines import MAKING, base, is_in, lender, site
from tests.component.middleware.contract import eventually
from tests.component.middleware.place import ContainersSite
from tests.component.portal import world
from tests.support.experiments import line
from tests.support.federation import USER, Federation, Member

__all__ = ["base", "site"]

SOMEBODY = bytes.fromhex("ffffffffffff020000000042")
TAGGED = SOMEBODY + bytes.fromhex("8100 0005 88b5") + b"of VLAN 5".ljust(46, b"\0")
BRIDGES = "ip -o link show | grep -o '^[0-9]*: br[0-9]*'"
WITHOUT_OURS = """rm -r /usr/local/lib/fedmesh-portal
kill -9 $(pidof user-script python3 ssh)
setsid /etc/fed/user-script >/dev/null 2>&1 </dev/null &
"""
NO_IP = SOMEBODY + bytes.fromhex("88b6") + b"no IP".ljust(46, b"\0")
SEND = f"""
import socket, time
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth1", 0))
while True:
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
class Part:
    """A node, or a portal's machine, which nobody but its host enters."""

    folder: Path
    name: str

    async def does(self, command: str) -> str:
        """What a command prints there."""
        return str((await client.ask(self.folder, do="run", node=self.name, command=command))["output"])

    async def runs(self, program: str) -> None:
        """Let Python do something there until this is cancelled."""
        await self.does(f"python3 - <<'END'\n{program}\nEND\n")

    async def runs_another(self, before: str) -> bool:
        """Whether another program runs there than before."""
        return await self.does("pidof python3") not in (before, "")

    async def is_joined_by(self, plane: str) -> bool:
        """What it says of itself; of a plane alone nobody is told before he looks."""
        brief = (await client.look(self.folder))[self.name].brief
        return brief is not None and (brief["joined"], brief["plane"]) == (True, plane)


def parts(site: ContainersSite, whole: Whole) -> tuple[list[Part], list[Part]]:
    """The nodes of an experiment, one of each piece, and the portals."""
    nodes, portals = [], []
    for segment in whole.segments:
        assert segment.order is not None
        assert isinstance(segment.order.spec, SegmentSpec)
        folder = site.state / "instances" / str(segment.order.lease_id)
        nodes += [Part(folder, one.name) for one in nodes_told(segment.order)]
        portals += [Part(folder, one.name) for one in segment.order.spec.connectors]
    return nodes, portals


async def are(member: Member, wanted: str, plane: str | None) -> bool:
    """Whether both portals are known to be joined by this plane; or (None) to be apart."""
    whole: Whole = await member.experiments.get(USER, wanted)
    infos = [segment.order.instance.segment for segment in whole.segments if segment.order and segment.order.instance]
    found = [(portal.joined, portal.plane) for info in infos if info is not None for portal in info.portals]
    return found == [(plane is not None, plane)] * 2


async def reaches(node: Part, other: Part) -> bool:
    """Whether one node reaches the other through the portals."""
    return "1 packets received" in await node.does(f"ping -c 1 -w 2 {other.name}")


async def carries(node: Part, other: Part) -> bool:
    """Whether a megabyte gets from one to the other by TCP."""
    send = f"import socket\nsocket.create_connection(('{other.name}', 7000), 9).sendall(bytes(1000000))"
    hear = "import socket\nfile = socket.create_server(('', 7000)).accept()[0].makefile('rb')\nprint(len(file.read()))"
    told, _ = await asyncio.gather(
        other.does(f'timeout 20 python3 -c "{hear}"'), node.does(f'sleep 1; python3 -c "{send}"')
    )
    return told.strip() == "1000000"


async def test_pieces_are_joined_by_super_frames_whatever_dies(site: ContainersSite, tmp_path: Path) -> None:
    folder = tmp_path / "tunnel"
    folder.mkdir()
    async with Federation(tmp_path) as federation, lender(federation, site, folder) as a:
        new = line("left", "right", members={"left": "a.test", "right": "a.test"})
        made, _grant, _key = await a.experiments.create(USER, new)
        wanted = made.experiment.id
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)
        assert await are(a, wanted, "superframes")

        nodes, portals = parts(site, await a.experiments.get(USER, wanted))

        sending = asyncio.create_task(nodes[0].runs(SEND))
        async with asyncio.timeout(MAKING):
            await nodes[1].runs(HEAR)
        sending.cancel()
        await asyncio.wait([sending])

        for portal in portals:
            bridges, program = await portal.does(BRIDGES), await portal.does("pidof python3")
            await portal.does(f"kill -9 {program}")
            await eventually(partial(portal.runs_another, program), MAKING)
            await eventually(partial(reaches, *nodes), MAKING)
            assert await portal.does(BRIDGES) == bridges
        log = [event.state for event in await a.experiments.log(USER, wanted)]
        assert State.JOINING not in log[log.index(State.ACTIVE) :]

        await portals[0].does("kill -STOP $(pidof python3)")
        await eventually(lambda: are(a, wanted, None), MAKING)
        await portals[0].does("kill -CONT $(pidof python3)")
        await eventually(lambda: are(a, wanted, "superframes"), MAKING)

        await portals[1].does(WITHOUT_OURS)
        for portal in portals:
            await eventually(partial(portal.is_joined_by, "classic"), MAKING)
        await eventually(partial(carries, *nodes), MAKING)
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []
