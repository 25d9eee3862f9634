"""Labs for the tests that need real servers behind real firewalls.

`lab` is one lab for the whole run: three sites with everything in them. A test that kills, cuts or misconfigures something
puts it right again. `servers` is a smaller one, only XMPP servers, whose component addresses the tests take themselves.

Where tests run in several processes, those that share a lab stay in one (tests/support/lanes.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from deploy.lab.client import Lab
from deploy.lab.errors import Unsupported
from deploy.lab.launch import way
from deploy.lab.topology import Plan


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
