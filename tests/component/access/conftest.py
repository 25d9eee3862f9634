"""Fixtures of the access controller's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.federation import Federation


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    """An empty federation in virtual time."""
    return Federation(tmp_path, virtual=True)
