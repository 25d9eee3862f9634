"""Labs for the tests that need real servers behind real firewalls.

`lab` is one lab for the whole run: three sites with everything in them. A test that kills, cuts or misconfigures something
puts it right again. `servers` is a smaller one, only XMPP servers, whose component addresses the tests take themselves.

Where tests run in several processes (pytest-xdist, `--dist loadgroup`), those that share a lab stay in one process, in their
order. Tests that mostly wait for what they killed to come back have a lab of their own beside the others'.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.lab.client import Lab
from deploy.lab.errors import Unsupported
from deploy.lab.launch import way
from deploy.lab.topology import Plan

WAITING = {"test_crashes", "test_partitions", "test_hostile"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests share a lab."""
    for item in items:
        wanted = getattr(item, "fixturenames", ())
        if "lab" in wanted:
            item.add_marker(pytest.mark.xdist_group("waiting" if item.path.stem in WAITING else "lab"))
        elif "servers" in wanted:
            item.add_marker(pytest.mark.xdist_group("servers"))


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip, saying why, where this machine lets us make no namespaces."""
    try:
        way()
    except Unsupported as error:
        pytest.skip(error.message)


@pytest.fixture(scope="session")
def lab(namespaces: None) -> Iterator[Lab]:
    """Three sites, the third one closed, with all components."""
    with Lab.up(f"test-{os.getpid()}", Plan(3)) as running:
        yield running


@pytest.fixture(scope="session")
def servers(namespaces: None) -> Iterator[Lab]:
    """Three sites, the third one closed, with nothing but their XMPP servers."""
    with Lab.up(f"servers-{os.getpid()}", Plan(3, ("xmpp",))) as running:
        yield running
