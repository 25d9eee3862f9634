"""Signed requests beside raw IQ pings, through the same two Prosody servers, in one run: `python -m tests.benchmarks.mesh`.

The reference is slixmpp as anybody would use it: XEP-0199 pings between two components, no signature, no store. A mesh request is a
whole command: outbox row committed at A, signed, verified, inbox row with its effect committed at B, signed answer,
verified. `answered` ends when A's answer handler has it, `closed` when the outbox row's removal is committed too.
The two take turns (A B A B …), so a noisy machine is noisy to both; the table shows medians. Stores are on disk with a real
`fsync` for each commit, and in memory (`/dev/shm`), which shows what the disk costs.

What else the machine does counts more than anything here, so the load average is printed too; `chrt -f 5` before the command
(as root) keeps others off the processors.

The bars: `answered` p50 at most 1.5 times the ping's, throughput with 64 in flight at least 0.7 times.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import structlog
from slixmpp import JID, ComponentXMPP

from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Outcome, Peer
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables
from fedkit.mesh.xmpp import XmppLink
from fedkit.protocol import Body, Empty
from fedkit.store import Database, Tx
from tests.support.prosody import SECRET, Prosody, prosody_pair

IN_FLIGHT = 64


class Order(Body):
    """About as much as a lease says."""

    lease_id: str = "3f1b2c4d-0000-4000-8000-000000000001"
    project: str = "benchmark"
    image: str = "debian-12"
    flavour: str = "small"
    keys: tuple[str, ...] = (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl machine",
    )


@dataclass
class Series:
    """The measured values of one way to ask."""

    name: str
    latency: list[float] = field(default_factory=list)
    closed: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


async def open_raw(stack: AsyncExitStack, address: str, host: str) -> ComponentXMPP:
    """A plain slixmpp component that answers pings."""
    raw = ComponentXMPP(address, SECRET, host, 5347, fix_error_ns=True)  # type: ignore[no-untyped-call]
    raw.register_plugin("xep_0199")
    ready = asyncio.Event()
    raw.add_event_handler("session_start", lambda _event: ready.set())
    raw.connect(host, 5347)
    await ready.wait()
    stack.callback(raw.abort)
    return raw


async def open_node(stack: AsyncExitStack, key: PrivateKey, address: str, host: str, store: Path) -> MeshNode:
    """A mesh node on a fresh store; enter it when its handlers are registered."""
    db = await stack.enter_async_context(Database(f"sqlite:///{store}/{address}.db"))
    await db.run(lambda tx: create_mesh_tables(tx.conn))
    return MeshNode(key, address, db, XmppLink(address, SECRET, host, 5347), requests_per_second=1e6)


async def respond(host: str, stores: dict[str, Path], key: PrivateKey) -> None:
    """Site B: a raw component and one node for each store, until the parent ends us."""
    async with AsyncExitStack() as stack:
        await open_raw(stack, "raw.site-b.test", host)
        for role, store in stores.items():
            node = await open_node(stack, key, f"{role}.site-b.test", host, store)
            node.on_command("bench.order", Order, lambda tx, request: Empty())
            await stack.enter_async_context(node)
            while not node.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        print("ready", flush=True)
        await asyncio.Event().wait()


class Asker:
    """Site A's node on one store: sends commands and times their outcomes."""

    def __init__(self, node: MeshNode, db: Database, peer: Peer) -> None:
        self.node, self.db, self.peer = node, db, peer
        self.answered: dict[str, float] = {}
        self.waiting: dict[str, asyncio.Future[None]] = {}
        node.on_answer("bench.order", self._settle)

    def _settle(self, tx: Tx, outcome: Outcome) -> None:
        assert outcome.error is None, outcome.error
        self.answered[outcome.request_id] = time.perf_counter()
        tx.after_commit(lambda: self.waiting.pop(outcome.request_id).set_result(None))

    async def ask(self) -> tuple[float, float]:
        """Send one command; return the seconds until it was answered and until it was closed."""
        started = time.perf_counter()
        done = asyncio.get_running_loop().create_future()

        def write(tx: Tx) -> str:
            identifier = self.node.enqueue(tx, self.peer, "bench.order", Order())
            self.waiting[identifier] = done
            return identifier

        identifier = await self.db.run(write)
        await done
        return self.answered.pop(identifier) - started, time.perf_counter() - started


async def one_by_one(ask: Callable[[], Awaitable[tuple[float, float]]], times: int, series: Series) -> None:
    for _ in range(times):
        answered, closed = await ask()
        series.latency.append(answered)
        series.closed.append(closed)


async def many(ask: Callable[[], Awaitable[tuple[float, float]]], times: int, series: Series) -> None:
    left = iter(range(times))

    async def worker() -> None:
        for _ in left:
            await ask()

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    series.rates.append(times / (time.perf_counter() - started))


async def measure(a: Prosody, stores: dict[str, Path], peer_key: str, rounds: int) -> list[Series]:
    async with AsyncExitStack() as stack:
        raw = await open_raw(stack, "raw.site-a.test", a.host)

        async def ping() -> tuple[float, float]:
            seconds = await raw.plugin["xep_0199"].ping(JID("raw.site-b.test"), timeout=10)
            return seconds, seconds

        ways: list[tuple[Series, Callable[[], Awaitable[tuple[float, float]]]]] = [(Series("raw IQ ping"), ping)]
        for role, store in stores.items():
            node = await open_node(stack, PrivateKey.generate(), f"{role}.site-a.test", a.host, store)
            asker = Asker(node, node._db, Peer(peer_key, f"{role}.site-b.test"))
            await stack.enter_async_context(node)
            while not node.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            ways.append((Series(f"mesh request, store {'on disk' if role == 'disk' else 'in memory'}"), asker.ask))
        for series, ask in ways:  # warm up: connections between the servers, pinned keys, caches
            await one_by_one(ask, 50, Series(series.name))
        for _ in range(rounds):
            for series, ask in ways:
                await one_by_one(ask, 100, series)
            for series, ask in ways:
                await many(ask, 1000, series)
        return [series for series, _ in ways]


def show(all_series: list[Series]) -> None:
    raw = all_series[0]
    print("load average " + " ".join(f"{load:.2f}" for load in os.getloadavg()))
    print(f"{'':32} {'p50 ms':>8} {'x raw':>6} {'p99 ms':>8} {'closed':>8} {'req/s':>8} {'x raw':>6}")
    for series in all_series:
        p50, rate = median(series.latency), median(series.rates)
        print(
            f"{series.name:32} {p50 * 1e3:8.2f} {p50 / median(raw.latency):6.2f}"
            f" {quantiles(series.latency, n=100)[98] * 1e3:8.2f} {median(series.closed) * 1e3:8.2f}"
            f" {rate:8.0f} {rate / median(raw.rates):6.2f}"
        )


@contextmanager
def responder(folder: Path, b: Prosody, stores: dict[str, Path], key: Path) -> Iterator[None]:
    """Site B in a process of its own."""
    arguments = [f"{role}={store}" for role, store in stores.items()]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.mesh", "--respond", b.host, "--key", str(key), *arguments],
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield
    finally:
        child.kill()
        child.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--respond", help=argparse.SUPPRESS)
    parser.add_argument("--key", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("stores", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.getLogger("slixmpp").setLevel(logging.CRITICAL)  # its ping logs a deprecation each time
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if options.respond:
        stores = {role: Path(store) for role, _, store in (item.partition("=") for item in options.stores)}
        asyncio.run(respond(options.respond, stores, PrivateKey.load(options.key)))
        return
    with tempfile.TemporaryDirectory() as disk, tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        key = PrivateKey.generate()
        key.save(Path(disk) / "b.pem")
        stores = {"disk": Path(disk), "memory": Path(memory)}
        with prosody_pair(Path(disk), "raw", *stores) as (a, b), responder(Path(disk), b, stores, Path(disk) / "b.pem"):
            show(asyncio.run(measure(a, stores, key.fedid, options.rounds)))


if __name__ == "__main__":
    main()
