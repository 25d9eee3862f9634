"""Fixtures of the order engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.databases import MISSING, Postgres
from tests.support.federation import Federation

__all__ = ["world", "world_on_both"]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Federation]:
    """An empty federation."""
    async with Federation(tmp_path) as federation:
        yield federation


@pytest.fixture(params=["sqlite", "postgresql"])
async def world_on_both(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres | None
) -> AsyncIterator[Federation]:
    """An empty federation whose members use SQLite or PostgreSQL."""
    urls: Iterator[str] | None = None
    if request.param == "postgresql":
        if postgres is None:
            pytest.skip(MISSING)
        urls = iter(postgres.migrated, "")
    async with Federation(tmp_path, urls) as federation:
        yield federation
