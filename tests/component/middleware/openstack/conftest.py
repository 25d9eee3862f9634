"""A real OpenStack for all tests, and a site of its own for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.openstack.layout import Cloud
from tests.component.middleware.openstack.place import OpenStackSite, prepare

PREFIX = "contract"


@pytest.fixture(scope="session")
def openstack() -> Cloud:
    """The cloud; FEDMESH_TEST_OPENSTACK is `STATE ADDRESS` of one that runs."""
    given = os.environ.get("FEDMESH_TEST_OPENSTACK")
    if given is None:
        pytest.skip("needs FEDMESH_TEST_OPENSTACK")
    state, address = given.split()
    cloud = Cloud(Path(state), address)
    prepare(cloud, PREFIX)
    return cloud


@pytest.fixture
def site(openstack: Cloud, tmp_path: Path) -> Iterator[OpenStackSite]:
    """A site of its own at the cloud."""
    site = OpenStackSite(openstack, tmp_path, PREFIX)
    yield site
    site.extra.clear()
    site.clear()
