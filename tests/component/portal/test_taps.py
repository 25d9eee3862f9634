"""What is taken from a portal: its tap, without which it ends, and a place for its status, without which it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedkit.portal.errors import NoTap
from tests.component.portal.world import SIDES, World, eventually, lacks

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))


def test_a_portal_whose_tap_was_deleted_says_so_and_ends(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        world.build()
        world.keys()
        portal = world.start("b", world.config("b"))
        world.start("a", world.config("a"))
        world.joined("superframes")
        world.at("portal-b", "ip", "link", "delete", "tap3")
        eventually(lambda: portal.poll() is not None, "its end")
        assert portal.returncode
        assert NoTap.code in (tmp_path / "portal-b.log").read_text()
        assert "br3" not in world.at("portal-b", "ip", "link", "show"), "it has put everything back"
        world.start("b", world.config("b"))
        eventually(world.pings, "a ping by the next")
    finally:
        world.close()


def test_a_portal_that_cannot_write_its_status_keeps_the_networks_joined(tmp_path: Path) -> None:
    world = World(tmp_path)
    try:
        world.build()
        world.keys()
        portals = [world.start(side, world.config(side)) for side in SIDES]
        world.joined("superframes")
        for side in SIDES:
            (tmp_path / f"state-{side}" / "status.json.new").mkdir()
        eventually(lambda: "cannot be written" in (tmp_path / "portal-b.log").read_text(), "it says so")
        assert [portal.poll() for portal in portals] == [None, None]
        assert world.pings()
    finally:
        world.close()
