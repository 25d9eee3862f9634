"""What the list of members costs, beside bare requests of the same mesh in the same run: `python -m tests.benchmarks.rendezvous`.

Rendezvous and members run in one process on a network in memory, each with its own SQLite store; so these figures are CPU
and store, not network. `--members` is how many are told of a change, `--listed` how long the list is that a new member reads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

import structlog

from fedkit.clock import now
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Request
from fedkit.mesh.node import MeshNode
from fedkit.protocol import Empty
from fedkit.protocol.announcement import read_announcement, sign_announcement
from fedkit.protocol.lending import Flavour, Offer
from fedkit.protocol.rendezvous import Alive, Announced, Announcement
from fedkit.store import Tx
from rendezvous import store
from tests.component.rendezvous.federation import Federation, Member, RunningRendezvous, eventually

OFFER = Offer(kinds=["compute"], flavours=[Flavour(name=f"size-{n}", vcpu=n, ram_mb=n, disk_gb=n) for n in range(1, 6)])
ROUNDS = 5
QUERIES = 200


@dataclass(frozen=True)
class Figure:
    """One line of the table; times in milliseconds."""

    name: str
    ours: float
    reference: str
    theirs: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


async def timed(work: Callable[[], Awaitable[object]], rounds: int) -> float:
    """Median milliseconds of `work`."""
    taken = []
    for _ in range(rounds):
        begin = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - begin) * 1000)
    return median(taken)


def serve_bare(mesh: MeshNode) -> None:
    """Answer a query and a command that do nothing; before the node runs."""

    async def answer(_request: Request[Empty]) -> Empty:
        return Empty()

    mesh.on_query("bare.query", Empty, answer)
    mesh.on_command("bare.command", Empty, lambda _tx, _request: Empty())


async def sign_of_life(rendezvous: RunningRendezvous, member: Member, serial: int) -> Figure:
    """One `rendezvous.alive`, which writes one row, beside a query that does nothing."""
    peer = rendezvous.mesh.me
    ours = await timed(lambda: member.mesh.ask(peer, "rendezvous.alive", Alive(serial=serial), Announced), QUERIES)
    theirs = await timed(lambda: member.mesh.ask(peer, "bare.query", Empty(), Empty), QUERIES)
    return Figure("sign of life", ours, "bare query", theirs)


async def change_told(rendezvous: RunningRendezvous, members: list[Member]) -> Figure:
    """From a new offer of one member until all know it, beside as many bare commands from the same node."""
    rounds = iter(range(ROUNDS))
    first = members[0].directory

    async def change() -> None:
        offer = Offer(attributes={"round": next(rounds)})
        first.set_offer(offer)
        name = first.members()[0].name
        await eventually(lambda: all(member.directory.find(name).offer == offer for member in members[1:]))

    async def command_all() -> None:
        ended: asyncio.Queue[None] = asyncio.Queue()
        rendezvous.mesh.on_answer("bare.command", lambda tx, _: tx.after_commit(lambda: ended.put_nowait(None)))
        deadline = now() + timedelta(seconds=30)

        def enqueue(tx: Tx) -> None:
            for member in members[1:]:
                rendezvous.mesh.enqueue(tx, member.mesh.me, "bare.command", Empty(), deadline=deadline)

        await rendezvous.db.run(enqueue)
        for _ in members[1:]:
            await ended.get()

    ours = await timed(change, ROUNDS)
    return Figure(f"change told to {len(members) - 1}", ours, "bare commands", await timed(command_all, ROUNDS))


async def list_read(listed: int) -> Figure:
    """A new member reads and checks the whole list, beside checking the same signatures alone."""
    entries = [signed(number) for number in range(listed)]

    def fill(tx: Tx) -> None:
        for text in entries:
            store.announce(tx, read_announcement(text), 3600, now(), listed + 1)
        tx.conn.execute(store.entries.update().values(silent=True))  # nobody is there to be told

    begin = time.perf_counter()
    for text in entries:
        read_announcement(text)
    theirs = (time.perf_counter() - begin) * 1000
    with tempfile.TemporaryDirectory(prefix="fedmesh-") as folder:
        federation = Federation(Path(folder))
        async with federation.rendezvous() as rendezvous:
            await rendezvous.db.run(fill)
            begin = time.perf_counter()
            async with federation.member("reader.test", crash=True) as reader:
                await eventually(lambda: len(reader.directory.members()) > listed)
                ours = (time.perf_counter() - begin) * 1000
    return Figure(f"list of {listed} read", ours, "its signatures", theirs)


def signed(number: int) -> str:
    """Somebody's announcement."""
    key = PrivateKey.generate()
    site = f"listed-{number}.test"
    said = Announcement(
        fedid=key.fedid, name=site, address=f"fm.{site}", serial=1, protocol=[1], issued=now(), offer=OFFER
    )
    return sign_announcement(key, said)


async def measure(members: int, listed: int) -> list[Figure]:
    """Run all."""
    with tempfile.TemporaryDirectory(prefix="fedmesh-") as folder:
        federation = Federation(Path(folder), prepare=serve_bare)
        async with federation.rendezvous() as rendezvous, AsyncExitStack() as stack:
            sites = [federation.member(f"site-{n}.test", crash=True) for n in range(members + 1)]
            running = [await stack.enter_async_context(site) for site in sites]
            await eventually(lambda: all(len(member.names()) == members + 1 for member in running))
            await eventually(lambda: all(member.directory.state().current for member in running))
            fedid = running[1].mesh.me.fedid
            query = store.entries.select().where(store.entries.c.fedid == fedid)
            serial = (await rendezvous.db.read(lambda conn: conn.execute(query).one())).serial
            return [
                await sign_of_life(rendezvous, running[1], serial),
                await change_told(rendezvous, running),
                await list_read(listed),
            ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=20)
    parser.add_argument("--listed", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures = asyncio.run(measure(options.members, options.listed))
    if options.json:
        json.dump([asdict(figure) for figure in figures], sys.stdout, indent=2)
        return
    print(f"{'':24}{'ms':>10}   {'reference':18}{'ms':>10}{'ratio':>8}")
    for figure in figures:
        print(f"{figure.name:24}{figure.ours:10.2f}   {figure.reference:18}{figure.theirs:10.2f}{figure.ratio:8.2f}")


if __name__ == "__main__":
    main()
