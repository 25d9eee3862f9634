"""A researcher's own machine is attached to an experiment on real machines: it reaches all nodes by name, and is clean afterwards."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from federation_member.access.log import AuditLog
from federation_member.accounts.signing_in import SignIn
from federation_member.experiments.model import State
from federation_member.usage.service import Usage
from federation_member.web.app import make_app
from federation_member.web.services import Services
from fedkit.protocol.segments import Operation
from fedkit.service import HttpServer
from tests.component.experiments.test_real_machines import MAKING, is_in, lender
from tests.component.middleware.conftest import base, site
from tests.component.middleware.contract import PUBLIC_KEY, eventually
from tests.component.middleware.place import GATEWAY, ContainersSite
from tests.support.desk import NOBODY, Desk, desk
from tests.support.experiments import line
from tests.support.federation import USER, Federation, Member

__all__ = ["base", "site"]

pytestmark = [pytest.mark.root, pytest.mark.timeout(500)]


@asynccontextmanager
async def api(a: Member) -> AsyncIterator[dict[str, str]]:
    """A member's REST API; how `fed` finds it."""
    services = Services(
        orders=a.orders,
        experiments=a.experiments,
        federation=cast(Any, a.directory),
        accounts=a.accounts,
        sign_in=SignIn(a.accounts, {}),
        credentials=a.credentials,
        audit=AuditLog(a.db, a.key.public),
        usage=Usage(a.db, a.federation.clock),
        fedid=a.key.fedid,
        name=a.name,
        missing=list,
        heartbeat=15.0,
    )
    _id, token = await a.accounts.issue(USER.name, "desk", 1)
    async with HttpServer(make_app(services, CollectorRegistry()), f"{GATEWAY}:0") as server:
        yield {"FED_URL": f"http://{GATEWAY}:{server.port}", "FED_TOKEN": token}


async def joined(process: Process) -> dict[str, Any]:
    """What `fed experiment attach` prints once the machine is joined."""
    assert process.stdout is not None
    assert process.stderr is not None
    text = b""
    async with asyncio.timeout(MAKING):
        while not text.rstrip().endswith(b"}"):
            read = await process.stdout.readline()
            assert read, (await process.stderr.read()).decode()
            text += read
    return cast(dict[str, Any], json.loads(text))


async def pings_all(place: Desk) -> None:
    """Every node answers, by its name."""
    for name in ("n0", "n1", "n1-wire1"):

        async def answers(name: str = name) -> bool:
            return (await place.does(place.words("ping", "-c", "1", "-w", "5", name)))[0] == 0

        await eventually(answers, MAKING)


async def test_a_desktop_pings_every_node_by_name_and_is_clean_afterwards(site: ContainersSite, tmp_path: Path) -> None:
    (folder := tmp_path / "tunnel").mkdir()
    async with Federation(tmp_path) as world, lender(world, site, folder) as a, api(a) as environment:
        members = {"left": "a.test", "right": "a.test"}
        new = line("left", "right", members=members, ssh_keys=[PUBLIC_KEY], name="exp")
        whole, _grant, _key = await a.experiments.create(USER, new)
        wanted = whole.experiment.id
        await eventually(lambda: is_in(a, wanted, State.ACTIVE), MAKING)
        with desk("br0", tmp_path / "hosts", environment) as place:
            before = await place.looks()
            await attach_and_leave(a, wanted, place)
            assert await place.looks() == before
            await attach_and_be_killed(place)
            assert await place.looks() == before
            await join_a_command_without_root(place)
            assert await place.looks() == before
            assert await a.experiments.desktops.page(USER, wanted) == []
            process = await place.start(place.fed("experiment", "attach", "exp", "-o", "json"))
            await joined(process)
            await a.experiments.terminate(USER, wanted)
            _out, err = await process.communicate()  # it ends by itself
            assert (process.returncode, b"experiments.unknown_attachment" in err) == (1, True), err.decode()
            assert await place.looks() == before
        await eventually(lambda: is_in(a, wanted, State.TERMINATED), MAKING)
    assert await site.leftovers() == []


async def attach_and_leave(a: Member, wanted: str, place: Desk) -> None:
    """It reaches the nodes, they reach it, and Ctrl-C ends that."""
    process = await place.start(place.fed("experiment", "attach", "exp", "--name", "laptop", "-o", "json"))
    told = await joined(process)
    assert (told["name"], told["at"]) == ("laptop", "wire1")
    await pings_all(place)

    address = told["address"].partition("/")[0]

    async def pinged() -> bool:
        done = await a.experiments.operate(USER, wanted, Operation.RUN, [], command=f"ping -c 1 -w 5 {address}")
        return set(done.status.values()) == {0}

    await eventually(pinged, MAKING)
    status, said = await place.does(place.fed("experiment", "attach", "exp"))  # the same network once more
    assert (status, "desktop.in_the_way" in said) == (1, True), said
    assert len(await a.experiments.desktops.page(USER, wanted)) == 1
    process.send_signal(signal.SIGINT)
    _out, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def attach_and_be_killed(place: Desk) -> None:
    """What a killed one leaves is put back by `detach`."""
    process = await place.start(place.fed("experiment", "attach", "exp", "-o", "json"))
    await joined(process)
    process.kill()
    await process.wait()
    assert "fed experiment attach" in await place.looks()
    status, said = await place.does(place.fed("experiment", "detach", "exp"))
    assert (status, "Put back" in said) == (0, True), said


async def join_a_command_without_root(place: Desk) -> None:
    """Somebody who is not root joins a command; its status is theirs."""
    words = "ping -c 1 -w 30 n0 && ping -c 1 -w 30 n1 && exit 7"
    process = await place.start(place.fed("experiment", "attach", "exp", "--", "sh", "-c", words, user=NOBODY))
    out, err = await process.communicate()
    assert process.returncode == 7, out.decode() + err.decode()
