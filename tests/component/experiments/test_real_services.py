"""Services on real machines: nodes of two testbeds, joined by real portals, get the kit by their user data and become one experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from federation_member.experiments.model import State
from fedkit.protocol.segments import Operation
from tests.component.experiments.test_real_machines import MAKING, is_in, lender
from tests.component.middleware.conftest import base, site
from tests.component.middleware.contract import PUBLIC_KEY, eventually
from tests.component.middleware.place import ContainersSite
from tests.support.experiments import line
from tests.support.federation import USER, Federation, Member

__all__ = ["base", "site"]

ASK = "/usr/bin/python3 /usr/local/federation/kit.pyz ask"
SERVICES = [
    "userconfig:left:right:project=TIED",
    "local_seer_control:left,right",
    "seer_master:left:right",
]
pytestmark = [pytest.mark.root, pytest.mark.timeout(500)]


async def asked(a: Member, wanted: str, words: str) -> Any:
    """What the control network answers at the master; None as long as it does not."""
    done = await a.experiments.operate(USER, wanted, Operation.RUN, ["master"], command=f"{ASK} {words}")
    return json.loads(done.output["master"]) if done.status.get("master") == 0 else None


async def test_the_master_sees_the_nodes_of_both_testbeds(site: ContainersSite, tmp_path: Path) -> None:
    (folder := tmp_path / "tunnel").mkdir()
    async with Federation(tmp_path) as world, lender(world, site, folder) as a:
        members = {"left": "a.test", "right": "a.test"}
        new = line("left", "right", members=members, ssh_keys=[PUBLIC_KEY], services=SERVICES)
        made, _grant, _key = await a.experiments.create(USER, new)
        wanted = made.experiment.id
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)

        async def both_are_seen() -> bool:
            told = await asked(a, wanted, "nodes")
            return told is not None and sorted(told["nodes"]) == ["n0", "n1"] and not told["unreachable"]

        await eventually(both_are_seen, MAKING)
        told = await asked(a, wanted, "run 'hostname; id alice'")
        said = {name: one["output"].split() for name, one in told["output"].items()}
        assert {name: words[0] for name, words in said.items()} == {"n0": "n0", "n1": "n1"}
        assert said["n0"][1:] == said["n1"][1:]
        assert said["n0"][1].endswith("(alice)")
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []
