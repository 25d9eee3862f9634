"""An experiment on real machines: two testbeds, each a segment, whose nodes share a link through portals and a tunnel server.

That is their lender's or, where it has none, the one of the member that makes the experiment.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.commands.experiment_logins import write
from federation_member.experiments.failing import nodes_told
from federation_member.experiments.joining import info_of
from federation_member.experiments.keys import ExperimentKey
from federation_member.experiments.model import FINAL, State, Whole
from federation_member.web.experiment_views import credentials_view
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.protocol.lending import Instance
from fedkit.protocol.segments import Operation
from fedkit.protocol.tunnel import TunnelLeases, TunnelLeasesPage
from reverse_tunnel.service import open_tunnel_server
from tests.component.middleware.conftest import base, site
from tests.component.middleware.contract import PUBLIC_KEY, eventually
from tests.component.middleware.machines import prints
from tests.component.middleware.place import GATEWAY, ContainersSite
from tests.support.experiments import line
from tests.support.federation import USER, Federation, Member
from tests.support.policies import rule
from tests.support.tunnel_site import TUNNEL_ADDRESS, free_range, write_config

__all__ = ["base", "site"]

MAKING = 180.0  # seconds that all of it may take on a busy machine
ASK = "until ping -c 1 -w 1 n1; do sleep 1; done; echo reached >/tmp/reached"


@asynccontextmanager
async def reached(
    world: Federation, name: str, folder: Path, site: ContainersSite | None = None
) -> AsyncIterator[Member]:
    """A member with a real tunnel server; its machines, if it has any, are real as well."""
    tunnel = {"listen": f"{GATEWAY}:0", "host": GATEWAY, "address": GATEWAY, "bind": GATEWAY, "ports": free_range(20)}
    key = PrivateKey.load(write_config(folder, ["0" * 40], tunnel=tunnel).identity.key)
    member = await world.add(
        name,
        lends=rule("all", "*/*/*", account="tests"),
        tunnel_server=Peer(key.fedid, TUNNEL_ADDRESS),
        real=None if site is None else site.middleware,
    )
    config = write_config(folder, [member.key.fedid], tunnel=tunnel)
    async with open_tunnel_server(config, world.network.link(TUNNEL_ADDRESS), world.clock):
        yield member


@asynccontextmanager
async def lender(world: Federation, site: ContainersSite, folder: Path) -> AsyncIterator[Member]:
    """One that makes the experiments and lends all that they need."""
    async with reached(world, "a", folder, site) as a:
        yield a


async def keeps(member: Member, *up: bool) -> bool:
    """Whether its tunnel server keeps so many ports for it, and who is there."""
    server = member.tunnel_server
    assert server is not None
    found = await member.mesh.ask(server, "tunnel.leases", TunnelLeasesPage(), TunnelLeases)
    return [port.up for lease in found.leases for port in lease.tunnels] == list(up)


async def is_in(member: Member, wanted: str, state: State) -> bool:
    """Whether an experiment has come so far."""
    whole: Whole = await member.experiments.get(USER, wanted)
    assert whole.experiment.state is state or whole.experiment.state not in FINAL, whole.experiment.reason
    return whole.experiment.state is state


def node(whole: Whole, name: str) -> Instance:
    """The machine that a node is."""
    for segment in whole.segments:
        for one in nodes_told(segment.order):
            if one.name == name:
                return Instance(name=name, address=one.address, user=one.user, host_keys=one.host_keys)
    raise AssertionError(f"there is no node {name}")


async def enter_by_what_lenders_gave(member: Member, wanted: str, key: ExperimentKey, folder: Path) -> None:
    """OpenSSH enters both nodes with what the experiment's key opens, and finds its way from one to the other by name."""
    found = credentials_view(*await member.experiments.credentials(USER, wanted)).model_dump(mode="json")
    assert [one.name for one in write(folder, found, key.pem)] == ["n0", "n1"]
    for name, other in (("n0", "n1"), ("n1", "n0")):
        command = [
            "ssh",
            "-F",
            str(folder / "ssh_config"),
            "-o",
            "BatchMode=yes",
            name,
            f"hostname && ping -c 1 {other}",
        ]
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stdin=DEVNULL)
        out, _ = await process.communicate()
        assert (process.returncode, out.decode().splitlines()[:1]) == (0, [name])


async def test_two_testbeds_are_one_network(site: ContainersSite, tmp_path: Path) -> None:
    folder = tmp_path / "tunnel"
    folder.mkdir()
    async with Federation(tmp_path) as world, lender(world, site, folder) as a:
        new = line(
            "left",
            "right",
            nodes={"n0": {"startup": ASK}},
            members={"left": "a.test", "right": "a.test"},
            ssh_keys=[PUBLIC_KEY],
        )
        made, _grant, key = await a.experiments.create(USER, new)
        wanted = made.experiment.id
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)
        first = node(await a.experiments.get(USER, wanted), "n0")
        await eventually(lambda: prints(first, "cat /tmp/reached", "reached"), MAKING)
        done = await a.experiments.operate(USER, wanted, Operation.RUN, [], command="hostname; id -u; exit 3")
        assert (done.output, done.status) == ({"n0": "n0\n0\n", "n1": "n1\n0\n"}, {"n0": 3, "n1": 3}), done.failed
        done = await a.experiments.operate(USER, wanted, Operation.REBOOT, ["n0"])
        assert done.failed == {}
        await enter_by_what_lenders_gave(a, wanted, key, folder / "login")
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []


async def test_two_testbeds_that_nobody_reaches_are_one_network(site: ContainersSite, tmp_path: Path) -> None:
    """Their member has no tunnel server; a portal holds a port of the home's, and the other one finds it there."""
    folder = tmp_path / "tunnel"
    folder.mkdir()
    async with Federation(tmp_path) as world, reached(world, "h", folder) as h:
        await world.add("a", lends=rule("all", "*/*/*", account="tests"), real=site.middleware)
        await eventually(lambda: "a.test" in {one.name for one in h.orders.engine.members() if one.offer.kinds}, MAKING)
        new = line("left", "right", members={"left": "a.test", "right": "a.test"})
        made, _grant, _key = await h.experiments.create(USER, new)
        wanted = made.experiment.id
        await eventually(lambda: is_in(h, wanted, State.ACTIVE), MAKING)
        await eventually(lambda: keeps(h, True), MAKING)
        segments = (await h.experiments.get(USER, wanted)).segments
        assert [portal.plane for one in segments for portal in info_of(one.order).portals] == ["superframes"] * 2
        done = await h.experiments.operate(USER, wanted, Operation.RUN, ["n0"], command="ping -c 1 -w 20 n1")
        assert done.status == {"n0": 0}, done
        await h.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(h, wanted, State.TERMINATED), MAKING)
        await eventually(lambda: keeps(h), MAKING)
    assert await site.leftovers() == []
