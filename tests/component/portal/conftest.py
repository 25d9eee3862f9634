"""Two sites for portals, and a place for machines, whose fixtures are those of the middlewares' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.middleware.conftest import base, site
from tests.component.portal.world import World

__all__ = ["base", "site"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Two sites with keys, not joined yet."""
    world = World(tmp_path)
    try:
        world.build()
        world.keys()
        yield world
    finally:
        world.close()
