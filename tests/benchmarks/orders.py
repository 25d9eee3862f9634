"""The order engine's share of time: `python -m tests.benchmarks.orders`.

Real books on disk (SQLite, one commit to the disk for each transaction), real mesh nodes, signatures and all; the network and the
clouds are in memory, so what is measured is ours alone. The reference in each run is a bare mesh command with its answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import structlog

from federation_member.orders.model import OrderState
from fedkit.protocol.lending import LeaseSync
from tests.support.fake_middleware import LARGE, SMALL, Cloud
from tests.support.federation import USER, Federation, Member, machine
from tests.support.policies import NOTHING

LARGE_ONLY = "vcpu >= 4"
HUGE = LARGE.model_copy(update={"name": "huge", "vcpu": 64})


async def seconds_until_running(a: Member, requirements: str = LARGE_ONLY) -> float:
    """From the user's call until the user's order says that it runs."""
    began = time.perf_counter()
    order = (await a.orders.create(USER, machine(requirements=requirements), None))[0]
    await a.until(order.id, OrderState.FULFILLED)
    return time.perf_counter() - began


async def round_trips(a: Member, b: Member, number: int) -> list[float]:
    """The reference: a signed query with a transaction at the other side, and its answer."""
    times = []
    for _ in range(number):
        began = time.perf_counter()
        await a.orders.engine.lenders.sync(b.peer, LeaseSync(lease_ids=[], seconds=60))
        times.append(time.perf_counter() - began)
    return times


def milliseconds(times: list[float]) -> dict[str, float]:
    """Median and 95th percentile."""
    return {"p50": round(median(times) * 1e3, 1), "p95": round(quantiles(times, n=20)[18] * 1e3, 1)}


async def two_members(folder: Path, number: int, waiting: int) -> dict[str, object]:
    """Orders from A to B, before and after many orders that wait for something else stand open at A."""
    figures: dict[str, object] = {}
    async with Federation(folder) as world:
        a, b = await world.add("a", Cloud(flavours=[SMALL])), await world.add("b")
        figures["reference: mesh round trip"] = milliseconds(await round_trips(a, b, number))
        figures["order at A until running at B"] = milliseconds([await seconds_until_running(a) for _ in range(number)])
        began = time.perf_counter()
        for _ in range(waiting // 100):
            await a.orders.create(USER, machine(requirements="vcpu == 64", count=100), None)
        figures[f"making {waiting} orders that wait, each"] = {
            "mean": round((time.perf_counter() - began) / waiting * 1e3, 2)
        }
        with_many = milliseconds([await seconds_until_running(a) for _ in range(number)])
        figures[f"the same with {waiting} open orders"] = with_many
        world.tell()
        meanwhile = milliseconds([await seconds_until_running(a) for _ in range(number)])
        figures["the same while all of them are looked at again"] = meanwhile
    return figures


async def refusals(folder: Path, number: int) -> dict[str, object]:
    """What each refusing candidate adds."""
    async with Federation(folder) as world:
        a = await world.add("a", Cloud(flavours=[SMALL]))
        for index in range(4):
            await world.add(f"full{index}", lends=NOTHING)
        good = await world.add("good")
        times: dict[int, list[float]] = {}
        while sum(map(len, times.values())) < number:
            began = time.perf_counter()
            order = (await a.orders.create(USER, machine(requirements=LARGE_ONLY), None))[0]
            await a.until(order.id, OrderState.FULFILLED)
            took = time.perf_counter() - began
            refused = len((await a.orders.why(USER, order.id)).attempts) - 1
            times.setdefault(refused, []).append(took)
        assert good.cloud.made
    return {
        f"after {refused} refusals": {"p50": round(median(took) * 1e3, 1)} for refused, took in sorted(times.items())
    }


async def dead_candidate(folder: Path) -> dict[str, object]:
    """What a candidate costs that does not answer: the first order, and the next."""
    async with Federation(folder) as world:
        a, dead = await world.add("a", Cloud(flavours=[SMALL])), await world.add("dead")
        await world.add("good")
        world.network.cut(a.address, dead.address)
        times = [round(await seconds_until_running(a) * 1e3, 1) for _ in range(5)]
    return {"five orders with one dead candidate": {"each": times}}


async def measure(number: int, waiting: int) -> dict[str, object]:
    """All of it; milliseconds."""
    figures: dict[str, object] = {}
    for part in (lambda f: two_members(f, number, waiting), lambda f: refusals(f, number), dead_candidate):
        with tempfile.TemporaryDirectory() as folder:
            figures |= await part(Path(folder))
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=50, help="orders for each figure")
    parser.add_argument("--waiting", type=int, default=10_000, help="open orders that stand in the way")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    figures = asyncio.run(measure(arguments.number, arguments.waiting))
    if arguments.output == "json":
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        assert isinstance(values, dict)
        print(f"{name:55} " + "  ".join(f"{key} {value} ms" for key, value in values.items()))


if __name__ == "__main__":
    main()
