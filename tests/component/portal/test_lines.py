"""Delays and losses of crossings, on any kernel: late by what both ends ask for, and short of what they lose."""

from __future__ import annotations

import re

import pytest

from tests.component.portal.test_planes import received
from tests.component.portal.world import SIDES, World, eventually, lacks

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))

PINGS = 40


def start(world: World, asked: dict[str, str]) -> None:
    """Run both portals, with more keys for the crossing of each."""
    for side in SIDES:
        path = world.config(side)
        path.write_text(path.read_text() + asked[side])
        world.start(side, path)
    world.joined("superframes")
    eventually(world.pings, "a ping")


def count(world: World, side: str, what: str) -> int:
    return int(world.status(side)["crossings"]["3"][what])


def test_each_end_delays_both_ways(world: World) -> None:
    start(
        world,
        {"a": "delay_ms = 20\ndelay_back_ms = 30.5\n", "b": "delay_ms = 10\ndelay_back_ms = 15\n"},
    )
    said = world.at("host-a", "ping", "-c", "3", "-i", "0.2", "-W", "30", world.address("b"))
    least = re.search(r"= ([0-9.]+)/", said)
    assert least is not None
    assert float(least[1]) >= 20 + 15 + 10 + 30.5
    data = bytes(range(256)) * 8000
    assert received(world, data) == data


def test_what_is_lost_is_counted_and_the_rest_arrives_whole(world: World) -> None:
    start(world, {"a": "loss_back = 0.3\n", "b": "loss = 0.02\n"})
    said = world.at("host-a", "ping", "-c", str(PINGS), "-i", "0.02", "-W", "1", world.address("b"), check=False)
    answers = re.search(r"(\d+) received", said)
    assert answers is not None
    assert int(answers[1]) < PINGS
    missing = PINGS - int(answers[1])
    eventually(lambda: count(world, "a", "lost") + count(world, "b", "lost") >= missing, "they are counted")
    data = bytes(range(256)) * 4000
    assert received(world, data) == data
