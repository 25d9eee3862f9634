"""A short run of each fuzz target, always the same; docs/contributing.md tells how to run them long."""

from __future__ import annotations

import random

import pytest

from tests.fuzz.credentials import TARGETS, run


@pytest.mark.parametrize("target", TARGETS)
def test_a_parser_survives_hostile_input(target: str) -> None:
    assert run(target, random.Random(target), executions=1500) == 1500
