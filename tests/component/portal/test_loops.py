"""A second way between two networks that are joined already: no storm, and the tunnel serves again when that way is gone."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.component.portal.test_planes import FRAMES
from tests.component.portal.world import SIDES, World, eventually, lacks, raw_socket, run

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))


def test_a_loop_is_cut_and_the_tunnel_comes_back(world: World) -> None:
    for side in SIDES:
        world.start(side, world.config(side))
    world.joined("superframes")
    eventually(world.pings, "a ping")
    run("ip", "link", "add", "around", "netns", world.ns("portal-a"), "type", "veth",
        "peer", "name", "around", "netns", world.ns("portal-b"))  # fmt: skip
    for side in SIDES:
        world.at(f"portal-{side}", "ip", "link", "set", "around", "master", "br3", "up")
    eventually(lambda: any(crossing(world, side)["state"] != "open" for side in SIDES), "the loop is seen")
    with raw_socket(world.ns("host-a"), "eth3") as here:
        here.send(FRAMES["no-ip"])  # a broadcast
    before = [crossing(world, side)["in_frames"] for side in SIDES]
    time.sleep(2.5)  # in which a broadcast that goes round would have been here a hundred thousand times
    assert all(crossing(world, side)["in_frames"] - old < 1000 for side, old in zip(SIDES, before, strict=True))
    world.at("portal-a", "ip", "link", "delete", "around")
    eventually(lambda: all(crossing(world, side)["state"] == "open" for side in SIDES), "the tunnel is open again", 180)
    eventually(world.pings, "a ping")


def crossing(world: World, side: str) -> dict[str, Any]:
    """What a portal tells of the crossing."""
    return dict(world.status(side)["crossings"]["3"])
