"""Fixtures of the Rendezvous's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.component.rendezvous.federation import Federation

MEMORY = Path("/dev/shm")  # many stores in one test: their commits need no disk


@pytest.fixture
def federation() -> Iterator[Federation]:
    """An empty federation."""
    with tempfile.TemporaryDirectory(prefix="fedmesh-", dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Federation(Path(folder))
