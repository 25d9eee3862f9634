"""The ports of pieces that a middleware runs as a whole, at their lender's tunnel server, while they change. All in virtual time."""

from __future__ import annotations

import asyncio

from federation_member.experiments.joining import info_of
from federation_member.middleware.contract import NodeRequest, NoQuota
from tests.component.experiments.test_extension import TWO, active, extended, lan, nodes
from tests.support.experiments import sites
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation, in_virtual_time


async def _no_n2(_call: str, what: object) -> None:
    if isinstance(what, NodeRequest) and what.name == "n2":
        raise NoQuota("It is full.")


@in_virtual_time
async def test_what_was_not_added_after_all_leaves_its_port_to_others(world: Federation) -> None:
    tunnels = FakeTunnelServer(world)
    async with sites(world, "h", "a", tunnels=tunnels, hosts=True) as (h, a):
        await active(h, **TWO)
        before = {lease_id: set(right.ports) for lease_id, right in tunnels.rights.items()}
        a.cloud.before = _no_n2
        await extended(h, lan(**TWO, n2="a.test"))
        await asyncio.sleep(120)
        assert set(nodes(await h.experiments.get(USER, "exp"))) == {"n0", "n1"}
        assert {lease_id: set(right.ports) for lease_id, right in tunnels.rights.items()} == before
        await extended(h, lan(**TWO, n3="a.test"))
        await asyncio.sleep(120)
        whole = await h.experiments.get(USER, "exp")
        reached = {node.name: node.port for segment in whole.segments for node in info_of(segment.order).nodes}
        assert reached.keys() == {"n0", "n1", "n3"}
        assert None not in reached.values()
