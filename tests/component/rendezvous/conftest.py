"""Fixtures of the Rendezvous's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.rendezvous.federation import Federation
from tests.support.databases import MISSING, Postgres

MEMORY = Path("/dev/shm")  # many stores in one test: their commits need no disk


@pytest.fixture
def federation() -> Iterator[Federation]:
    """An empty federation."""
    with tempfile.TemporaryDirectory(prefix="fedmesh-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Federation(Path(folder))


@pytest.fixture
def federation_on_postgresql(postgres: Postgres | None, tmp_path: Path) -> Federation:
    """An empty federation whose stores are on PostgreSQL."""
    if postgres is None:
        pytest.skip(MISSING)
    return Federation(tmp_path, new_url=postgres.url)
