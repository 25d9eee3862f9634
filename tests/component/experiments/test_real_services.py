"""Services on real machines: nodes of two testbeds, joined by real portals, get the kit by their user data and become one experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.image.build import FOR_EXPERIMENTS, PLACE, build
from federation_member.experiments.model import State
from federation_member.middleware.containers.ids import IdSpace
from federation_member.middleware.containers.nodes import mounts
from fedkit.protocol.segments import Operation
from tests.component.experiments.test_real_machines import MAKING, is_in, lender
from tests.component.middleware.conftest import site
from tests.component.middleware.contract import PUBLIC_KEY, eventually
from tests.component.middleware.place import ContainersSite
from tests.support.experiments import line
from tests.support.federation import USER, Federation, Member

__all__ = ["site"]

HAS_FUSE = mounts.are_possible(IdSpace.of_this_process().of_machine(0).first)
KIT = "/usr/bin/python3 /usr/local/federation/kit.pyz"
ASK = f"{KIT} ask"
LEFT = f"{KIT} undo; grep -c /proj/ /proc/mounts; ls -d /proj /home/alice 2>/dev/null; pidof smbd smbnetfs python3"
SERVICES = [
    "project_export:left:right:project=TIED",
    "local_seer_control:left,right",
    "seer_master:left:right",
]
pytestmark = [pytest.mark.root, pytest.mark.timeout(500)]


@pytest.fixture(scope="session")
def base() -> Path:
    """The image that nodes and portals are made of."""
    return build(PLACE / "testbed", contents=FOR_EXPERIMENTS)


async def asked(a: Member, wanted: str, words: str) -> Any:
    """What the control network answers at the master; None as long as it does not."""
    done = await a.experiments.operate(USER, wanted, Operation.RUN, ["master"], command=f"{ASK} {words}")
    return json.loads(done.output["master"]) if done.status.get("master") == 0 else None


async def printed(a: Member, wanted: str, node: str, command: str, by: str = "alice") -> str:
    """What somebody's command prints there."""
    done = await a.experiments.operate(USER, wanted, Operation.RUN, [node], command=f"su {by} -c '{command}'")
    return done.output.get(node, "")


async def check_files(a: Member, wanted: str) -> None:
    """What is written at one testbed is read at the other, as soon as both are set up."""
    await printed(a, wanted, "n0", "echo hello >/proj/tied/file")

    async def is_read() -> bool:
        return await printed(a, wanted, "n1", "cat /proj/tied/file") == "hello\n"

    await eventually(is_read, MAKING)


async def test_the_master_sees_the_nodes_of_both_testbeds_and_one_reads_the_files_of_the_other(
    site: ContainersSite, tmp_path: Path
) -> None:
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
        if HAS_FUSE:
            await check_files(a, wanted)
            for name in ("n0", "n1"):
                assert await printed(a, wanted, name, LEFT, by="root") == "0\n"
            for name in ("n0", "n1"):
                assert await printed(a, wanted, name, f"{KIT} apply", by="root") == ""
            await check_files(a, wanted)
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []


async def test_where_nothing_can_be_mounted_nodes_say_so_and_all_else_is_served(
    site: ContainersSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (nothing := tmp_path / "filesystems").touch()
    monkeypatch.setattr(mounts, "FILE_SYSTEMS", nothing)
    (folder := tmp_path / "tunnel").mkdir()
    async with Federation(tmp_path) as world, lender(world, site, folder) as a:
        members = {"left": "a.test", "right": "a.test"}
        new = line("left", "right", members=members, services=SERVICES[:1])
        made, _grant, _key = await a.experiments.create(USER, new)
        wanted = made.experiment.id
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)

        async def is_told() -> bool:
            return "not all that services want is done" in await printed(a, wanted, "n1", "cat /tmp/federate")

        await eventually(is_told, MAKING)
        said = await printed(a, wanted, "n1", "cat /tmp/federate; id -un")
        assert "mount /proj/tied: this machine may mount nothing" in said
        assert "1 things failed" in said
        assert said.endswith("alice\n")
        await a.experiments.terminate(USER, wanted)
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
