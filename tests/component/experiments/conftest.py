"""Fixtures of the tests of experiments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from federation_member.experiments import desktops, extending, planning, service
from tests.support.federation import Federation


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be done in a thread is done at once: no thread may be where time is virtual."""

    async def here(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return function(*arguments, **named)

    for module in (desktops, extending, planning, service):
        monkeypatch.setattr(module, "to_thread", here)


@pytest.fixture
def world(tmp_path: Path, no_threads: None) -> Federation:
    """An empty federation in virtual time."""
    return Federation(tmp_path, virtual=True)
