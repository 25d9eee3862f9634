"""The `libvirt` kind keeps the contract, with a real libvirtd and real guests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.image.guest import GuestImage, build
from tests.component.middleware.contract import MiddlewareContract
from tests.component.middleware.machines import MachineContract
from tests.component.middleware.place import network_namespace

pytest.importorskip("libvirt", reason="libvirt-python is not installed; run deploy/setup --libvirt")
from tests.component.middleware.libvirt_place import LibvirtSite

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def tiny() -> GuestImage:
    """The smallest guest; built if it is not there."""
    return build("tiny")


@pytest.fixture
def site(tiny: GuestImage) -> Iterator[LibvirtSite]:
    """A site of its own."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("libvirtd", "qemu-system-x86_64", "qemu-img"))):
        pytest.skip("needs root, libvirtd and QEMU; run deploy/setup --libvirt")
    # A short path: names of sockets have 108 octets at most.
    with tempfile.TemporaryDirectory(prefix="fedlv-") as folder, network_namespace():
        site = LibvirtSite(tiny, Path(folder))
        site.begin()
        yield site
        site.clear()


class TestLibvirt(MiddlewareContract, MachineContract):
    """With emulated processors, which every machine has."""

    repeats_steps = False
