"""A real OpenStack for all tests (tests/support/openstack.py), and a site of its own for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.openstack.layout import Cloud
from tests.component.middleware.openstack.place import OpenStackSite, prepare
from tests.support.openstack import OpenStack

PREFIX = "contract"


@pytest.fixture(scope="session")
def openstack(real_openstack: OpenStack) -> Cloud:
    """The cloud, with two projects in it."""
    prepare(real_openstack.cloud, PREFIX)
    return real_openstack.cloud


@pytest.fixture
def site(openstack: Cloud, tmp_path: Path) -> Iterator[OpenStackSite]:
    """A site of its own at the cloud."""
    site = OpenStackSite(openstack, tmp_path, PREFIX)
    yield site
    site.extra.clear()
    site.clear()
