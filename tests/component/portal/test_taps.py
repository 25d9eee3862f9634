"""A tap that somebody deletes: the portal says so and ends, and whoever started it may start it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedkit.portal.errors import NoTap
from tests.component.portal.world import World, eventually, lacks

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
