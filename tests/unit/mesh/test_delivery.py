"""Commands and queries between two nodes on a network in memory, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from fedkit.errors import RemoteError
from fedkit.mesh.errors import LinkDown, NoAnswer, PeerUnreachable, TooLarge
from fedkit.mesh.node import MeshNode
from fedkit.protocol import Body
from fedkit.store import Tx
from tests.support.memory_network import Deliveries, MemoryNetwork, Packet
from tests.support.mesh_sites import Say, Site
from tests.support.virtual_time import InlineDatabase, clock, run

T = TypeVar("T")


class Other(Body):
    """Not what the receiver expects."""

    other: int


@asynccontextmanager
async def two_sites(folder: Path) -> AsyncIterator[tuple[MemoryNetwork, Site, Site]]:
    network = MemoryNetwork()
    a, b = Site(network, "a", folder), Site(network, "b", folder)
    await a.start()
    await b.start()
    try:
        yield network, a, b
    finally:
        await a.stop()
        await b.stop()


def test_a_command_takes_effect_and_its_outcome_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await a.say(b.peer, "hello")
            await asyncio.sleep(1)
            assert b.effects() == ["hello"]
            assert a.outcomes() == [("hello", "")]
            assert a.waiting() == 0

    run(scenario())


def test_a_command_written_while_the_outbox_is_read_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.cut(a.address, b.address)
            await a.say(b.peer, "before")
            await a.stop()
            network.heal(a.address, b.address)
            read = InlineDatabase.read

            async def slow(self: InlineDatabase, function: Callable[[Connection], T]) -> T:
                result = await read(self, function)
                await asyncio.sleep(1)
                return result

            monkeypatch.setattr(InlineDatabase, "read", slow)
            await a.start()
            await asyncio.sleep(0.5)
            await a.say(b.peer, "meanwhile")
            await asyncio.sleep(10)
            assert b.effects() == ["before", "meanwhile"]
            assert a.waiting() == 0

    run(scenario())


def test_a_query_is_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            assert await a.ask(b.peer, "hello") == "HELLO"

    run(scenario())


def test_a_refusal_travels_with_its_code_and_is_final(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await a.say(b.peer, "refuse this")
            await asyncio.sleep(1)
            assert a.outcomes() == [("refuse this", "test.not_today")]
            assert b.effects() == []
            assert len(b.rows("mesh_inbox")) == 1

    run(scenario())


def test_commands_keep_their_order_when_the_network_does_not(tmp_path: Path) -> None:
    """Every third request is lost at first, and delays differ."""
    lost: set[int] = set()

    def faults(packet: Packet) -> Deliveries:
        if packet.number % 3 == 0 and not packet.reply and packet.number not in lost:
            lost.add(packet.number)
            return []
        return [(0.001 * (packet.number * 7 % 11), packet)]

    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.faults = faults
            said = [str(number) for number in range(40)]
            for text in said:
                await a.say(b.peer, text)
            await asyncio.sleep(600)
            assert b.effects() == said
            assert sorted(a.outcomes()) == sorted((text, "") for text in said)

    run(scenario())


def test_a_handler_that_crashes_blocks_nobody_and_is_tried_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await a.say(b.peer, "fail once")
            await a.say(b.peer, "after")
            await asyncio.sleep(30)
            assert sorted(b.effects()) == ["after", "fail once"]
            assert sorted(a.outcomes()) == [("after", ""), ("fail once", "")]

    run(scenario())


def test_a_dead_peer_delays_only_itself_and_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            c = await Site(network, "c", tmp_path).start()
            await b.stop()
            for number in range(300):
                await a.say(b.peer, f"{number}")
            await a.say(c.peer, "hello c")
            await asyncio.sleep(0.1)
            assert c.effects() == ["hello c"]
            await asyncio.sleep(3600)
            assert a.link.sent < 60  # backing off, not hammering
            await b.start()
            await asyncio.sleep(301)
            assert b.effects() == [str(number) for number in range(300)]
            await c.stop()

    run(scenario())


def test_a_message_from_the_peer_ends_its_back_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await b.stop()
            await a.say(b.peer, "hello")
            await asyncio.sleep(1800)
            assert a.waiting() == 1
            await b.start()
            await b.say(a.peer, "I am back")
            await asyncio.sleep(1)
            assert b.effects() == ["hello"]
            assert a.effects() == ["I am back"]
            assert b.peer in a.alive

    run(scenario())


def test_back_off_outlives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await b.stop()
            await a.say(b.peer, "hello")
            await asyncio.sleep(1800)
            await a.stop()
            await a.start()
            await asyncio.sleep(1)
            assert a.link.sent == 0
            with pytest.raises(PeerUnreachable) as raised:
                await a.ask(b.peer, "anybody there")
            assert raised.value.details["next_attempt"] > 0

    run(scenario())


def test_a_deadline_that_passes_is_told_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.cut(a.address, b.address)
            await a.say(b.peer, "soon", deadline=3)
            await asyncio.sleep(4)
            assert a.outcomes() == [("soon", "mesh.no_answer")]
            await asyncio.sleep(600)
            assert a.outcomes() == [("soon", "mesh.no_answer")]
            assert a.waiting() == 0

    run(scenario())


def test_a_command_with_a_deadline_fails_at_once_during_back_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await b.stop()
            await a.say(b.peer, "first")
            await asyncio.sleep(100)
            await a.say(b.peer, "soon", deadline=60)
            await asyncio.sleep(0.01)
            assert a.outcomes() == [("soon", "mesh.unreachable")]

    run(scenario())


def test_a_deadline_survives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.cut(a.address, b.address)
            await a.say(b.peer, "soon", deadline=30)
            await a.stop()
            await asyncio.sleep(60)
            await a.start()
            await asyncio.sleep(0.1)
            assert a.outcomes() == [("soon", "mesh.no_answer")]

    run(scenario())


def test_an_own_link_that_is_down_is_nobodys_back_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            a.link.set_up(False)
            await a.say(b.peer, "hello")
            with pytest.raises(LinkDown):
                await a.ask(b.peer, "hello")
            await asyncio.sleep(60)
            a.link.set_up(True)
            await asyncio.sleep(0.1)
            assert b.effects() == ["hello"]

    run(scenario())


def test_a_link_lost_while_commands_are_in_flight_loses_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.faults = lambda packet: [(0.05, packet)]
            for number in range(50):
                await a.say(b.peer, f"{number}")
                if number % 10 == 5:
                    await asyncio.sleep(0.07)
                    a.link.set_up(False)
                    a.link.set_up(True)
            await asyncio.sleep(60)
            assert b.effects() == [str(number) for number in range(50)]

    run(scenario())


@pytest.mark.parametrize("size", [44_000, 70_000, 300_000, 1_000_000])
def test_a_large_command_goes_in_chunks(tmp_path: Path, size: int) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            said = "é" * (size // 2)
            await a.say(b.peer, said)
            await asyncio.sleep(30)
            assert b.effects() == [said]
            assert max(len(packet.text) for packet in network.packets) <= 65536

    run(scenario())


def test_chunks_start_again_when_the_receiver_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.faults = lambda packet: [(0.01, packet)]
            await a.say(b.peer, "x" * 500_000)
            await asyncio.sleep(0.1)
            await b.stop()
            await b.start()
            await asyncio.sleep(60)
            assert b.effects() == ["x" * 500_000]

    run(scenario())


def test_what_is_too_large_is_refused_before_it_is_written(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            with pytest.raises(TooLarge):
                await a.say(b.peer, "x" * 1_100_000)
            with pytest.raises(TooLarge):
                await a.ask(b.peer, "x" * 50_000)
            assert a.waiting() == 0

    run(scenario())


def test_an_answer_that_is_too_large_undoes_the_command(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            await a.say(b.peer, "too much")
            await asyncio.sleep(1)
            assert a.outcomes() == [("too much", "mesh.answer_too_large")]
            assert b.effects() == []

    run(scenario())


def test_a_query_that_takes_too_long(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            with pytest.raises((NoAnswer, RemoteError)) as raised:
                await a.ask(b.peer, "slow", timeout=2)
            assert raised.value.code == "mesh.no_answer"

    run(scenario())


def test_unknown_operation_and_bad_body_are_said_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with two_sites(tmp_path) as (_, a, b):
            with pytest.raises(RemoteError) as raised:
                await a.mesh.ask(b.peer, "test.nothing", Say(text=""), Say)
            assert raised.value.code == "mesh.unknown_operation"
            with pytest.raises(RemoteError) as raised:
                await a.mesh.ask(b.peer, "test.ask", Other(other=1), Say)
            assert raised.value.code == "mesh.bad_body"
            assert raised.value.details["fields"] == ["text", "other"]

    run(scenario())


class RacingDatabase(InlineDatabase):
    """Runs `rival` right after the first transaction, before whoever asked for that one goes on."""

    rival: Callable[[Tx], object] | None = None

    async def run(self, function: Callable[[Tx], T]) -> T:
        result = await super().run(function)
        if (rival := self.rival) is not None:
            self.rival = None
            await super().run(rival)
        return result


def test_a_command_written_while_the_node_starts_is_sent(tmp_path: Path) -> None:
    async def scenario() -> None:
        network = MemoryNetwork()
        a, b = Site(network, "a", tmp_path), Site(network, "b", tmp_path)
        await b.start()
        db = RacingDatabase(a.url)
        async with db:
            node = MeshNode(a.key, a.address, db, network.link(a.address), clock)
            db.rival = lambda tx: node.enqueue(tx, b.peer, "test.say", Say(text="early"))
            async with node:
                await asyncio.sleep(5)
        assert b.effects() == ["early"]
        await b.stop()

    run(scenario())


def test_a_deadline_that_passes_in_flight_ends_the_attempts(tmp_path: Path) -> None:
    """Found by the law of exactly once: the row was gone, the command went round for ever."""

    async def scenario() -> None:
        async with two_sites(tmp_path) as (network, a, b):
            network.faults = lambda packet: [(30.0, packet)]
            await a.say(b.peer, "soon", deadline=10)
            await asyncio.sleep(100)
            assert a.outcomes() == [("soon", "mesh.no_answer")]
            assert a.link.sent < 5

    run(scenario())
