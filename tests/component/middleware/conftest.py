"""A place for machines, made for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.image.build import build

pytest.register_assert_rewrite("tests.component.middleware.contract")
from tests.component.middleware.place import ContainersSite, network_namespace  # noqa: E402  after the line above


@pytest.fixture(scope="session")
def base() -> Path:
    """The root file system; built if it is not there."""
    given = os.environ.get("FEDMESH_TEST_BASE")
    return Path(given) if given else build()


@pytest.fixture
def site(base: Path, tmp_path: Path) -> Iterator[ContainersSite]:
    """A site of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root, or the user namespace that test_containers_without_root.py makes")
    with network_namespace():
        site = ContainersSite(base, tmp_path / "state")
        yield site
        site.clear()
