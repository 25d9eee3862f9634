"""Our share of time at an OpenStack: `python -m tests.benchmarks.openstack --state DIR --address IP [what …]`.

The cloud is a real one that runs already (`python -m deploy.openstack up --profile small`); the reference is a bare openstacksdk
script that makes a server there, turn about with ours. What no cloud on one machine can hold (5,000 servers) is listed from recorded
answers, served by another process. The machine's own noise stands beside each figure as its spread.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
import uuid
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import structlog
from openstack.connection import Connection

from deploy.openstack.layout import Cloud
from federation_member.middleware.contract import Owned, PlainRequest, Status, Unavailable
from federation_member.middleware.openstack import OpenStackMiddleware
from fedkit.protocol.lending import NetworkSpec
from tests.component.middleware.contract import compute
from tests.component.middleware.openstack.place import PASSWORD, OpenStackSite, prepare
from tests.support.openstack_faults import FaultyCloud, hang
from tests.support.recorded_openstack import SITE

PREFIX = "bench"
POLL = 0.25  # seconds between two looks of the bare script; openstacksdk's own default is 2


class Running:
    """Our middleware, used as the keeper uses it: `create` again whenever it says that something changed."""

    def __init__(self, middleware: OpenStackMiddleware) -> None:
        self.middleware = middleware
        self._changes: dict[str, asyncio.Event] = {}

    def changed(self, key: str) -> None:
        """What the keeper would be woken by."""
        self._changes.setdefault(key, asyncio.Event()).set()

    async def machine(self, site: OpenStackSite) -> tuple[str, float]:
        """Order a machine; its key, and the seconds until it was active."""
        key, request = str(uuid.uuid4()), compute(site)
        began = time.perf_counter()
        while (await self.middleware.create(key, request)).status is Status.CREATING:
            event = self._changes.setdefault(key, asyncio.Event())
            await event.wait()
            event.clear()
        return key, time.perf_counter() - began


@asynccontextmanager
async def started(site: OpenStackSite) -> AsyncIterator[Running]:
    """A member's middleware that runs."""
    running = Running(site.middleware())
    await running.middleware.start(running.changed)
    try:
        yield running
    finally:
        await running.middleware.stop()


def bare(site: OpenStackSite) -> Callable[[], float]:
    """The reference: make a server and wait for it, as an operator's script does, with a connection that is open already."""
    options = site.options["accounts"]["tests"]
    connection = Connection(
        auth={
            "auth_url": site.openstack.auth_url,
            "username": options["user"],
            "password": PASSWORD,
            "project_name": options["project"],
            "user_domain_name": "Default",
            "project_domain_name": "Default",
        },
    )
    image = connection.image.find_image(site.image)
    flavour = connection.compute.find_flavor(site.flavour.name)
    network = connection.network.find_network(site.options["network"])
    assert image
    assert flavour
    assert network

    def once() -> float:
        began = time.perf_counter()
        server = connection.compute.create_server(
            name="box", image_id=image.id, flavor_id=flavour.id, networks=[{"uuid": network.id}], config_drive=True
        )
        connection.compute.wait_for_server(server, interval=POLL, wait=300)
        seconds = time.perf_counter() - began
        connection.compute.delete_server(server)
        connection.compute.wait_for_delete(server, interval=POLL, wait=300)
        return seconds

    return once


async def overhead(site: OpenStackSite, rounds: int) -> dict[str, object]:
    """Turn about: bare, ours, bare, ours, …"""
    site.extra = {"poll": 60}  # what is looked at while nothing is made would only hold up the bare script
    script, theirs, ours = bare(site), [], []
    async with started(site) as running:
        for _ in range(rounds + 1):
            theirs.append(await asyncio.to_thread(script))
            key, seconds = await running.machine(site)
            ours.append(seconds)
            await running.middleware.delete(key)
    theirs, ours = theirs[1:], ours[1:]  # the first of each opens connections
    more = median(ours) / median(theirs) - 1
    return {"bare script": figures(theirs), "ours": figures(ours), "overhead of the medians": f"{more:+.1%}"}


async def crowd(site: OpenStackSite, number: int) -> dict[str, object]:
    """Many orders at once; how many calls were under way at most is counted by a proxy."""
    async with FaultyCloud(f"http://{site.openstack.address}") as proxy:
        site.extra = {"auth_url": proxy.auth_url, "timeouts": {"call": 600}}
        async with started(site) as running:
            began = time.perf_counter()
            made = await asyncio.gather(*(running.machine(site) for _ in range(number)))
            seconds = time.perf_counter() - began
            listed = await running.middleware.list_owned()
            await asyncio.gather(*(running.middleware.delete(key) for key, _ in made))
        running_ones = sum(owned.status is Status.RUNNING for owned in listed)
        return {
            "orders": number,
            "all active after": f"{seconds:.1f} s",
            "running": running_ones,
            "calls at the same time at most": proxy.most_at_once,
        }


async def listing(number: int, rounds: int) -> dict[str, object]:
    """All that is owned, from recorded answers."""
    command = [sys.executable, "-m", "tests.support.recorded_openstack", str(number)]
    server = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert server.stdin
    assert server.stdout
    port = (await server.stdout.readline()).decode().strip()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "password").write_text(PASSWORD)
        account = {"user": "u", "password_file": f"{folder}/password", "project": "p"}
        options: dict[str, Any] = {"site": SITE, "network": "n", "accounts": {"a": account}}
        options["auth_url"] = f"http://127.0.0.1:{port}/identity/v3"
        middleware = OpenStackMiddleware(OpenStackMiddleware.Config.model_validate(options))  # type: ignore[arg-type]
        times, ours = [], []
        for _ in range(rounds):
            began, used = time.perf_counter(), time.process_time()
            assert len(await middleware.list_owned()) == number
            times.append(time.perf_counter() - began)
            ours.append(time.process_time() - used)
    server.stdin.close()
    await server.wait()
    return {"owned": number, "listed in": figures(times), "of it our processor time": figures(ours)}


async def hanging(site: OpenStackSite, seconds: float) -> dict[str, object]:
    """A cloud that hangs: what its own orders are told and when, and how long another cloud's calls take meanwhile."""
    async with FaultyCloud(f"http://{site.openstack.address}") as proxy, started(site) as other:
        stuck = OpenStackSite(site.openstack, site.folder, PREFIX)
        stuck.extra = {"auth_url": proxy.auth_url, "timeouts": {"answer": 5, "call": 8}}
        async with started(stuck) as running:
            before = [await timed(other.middleware.list_owned) for _ in range(10)]
            with proxy.fault("GET", "", hang(seconds)), proxy.fault("POST", "", hang(seconds)):
                told = [asyncio.create_task(patience(running, site)) for _ in range(30)]
                meanwhile = [await timed(other.middleware.list_owned) for _ in range(10)]
                waited = await asyncio.gather(*told)
    return {
        "30 orders at the cloud that hangs are told so after": figures(waited),
        "a list at another cloud before": figures(before),
        "a list at another cloud meanwhile": figures(meanwhile),
    }


async def patience(running: Running, site: OpenStackSite) -> float:
    """Seconds until an order is told that the cloud does not answer."""
    began = time.perf_counter()
    try:
        await running.middleware.create(str(uuid.uuid4()), PlainRequest(NetworkSpec(cidr="10.8.0.0/24"), site.account))
    except Unavailable:
        return time.perf_counter() - began
    raise AssertionError("it answered")


async def timed(what: Callable[[], Any]) -> float:
    """Seconds."""
    began = time.perf_counter()
    answer: list[Owned] = await what()
    assert answer is not None
    return time.perf_counter() - began


def figures(times: list[float]) -> str:
    """Median and quartiles."""
    low, _, high = quantiles(times, n=4)
    return f"{median(times):.3f} s ({low:.3f} … {high:.3f}, {len(times)} times)"


async def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="of the cloud that runs")
    parser.add_argument("--address", required=True, help="where it answers")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--hang", type=float, default=60.0, help="seconds")
    parser.add_argument("what", nargs="*", default=["overhead", "crowd", "listing", "hanging"])
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    cloud = Cloud(options.state, options.address)
    await asyncio.to_thread(prepare, cloud, PREFIX)
    with tempfile.TemporaryDirectory() as folder:
        site = OpenStackSite(cloud, Path(folder), PREFIX)
        measures = {
            "overhead": lambda: overhead(site, options.rounds),
            "crowd": lambda: crowd(site, options.orders),
            "listing": lambda: listing(5000, options.rounds),
            "hanging": lambda: hanging(site, options.hang),
        }
        for name in options.what:
            print(json.dumps({name: await measures[name]()}, indent=2, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
