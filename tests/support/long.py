"""Tests that take minutes of processor time where machines are emulated: run by `tests/run --long` alone, and named in every other run.

What they show is shown in short by others: another guest boots, other victims die. They stand for the rest of the list.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--long", action="store_true", help="also run what takes minutes each (marker `long`)")


def pytest_itemcollected(item: pytest.Item) -> None:
    """The crash at any step is the contract's, and quick with containers: slow kinds (`repeats_steps` is false) have it in long runs."""
    cls = item.getparent(pytest.Class)
    if cls is not None and not getattr(cls.obj, "repeats_steps", True) and "killed_at_any_step" in item.name:
        item.add_marker(pytest.mark.long)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave long ones out, and say so."""
    if item.get_closest_marker("long") is not None and not item.config.getoption("--long"):
        pytest.skip("takes minutes: tests/run --long")
