"""What a site lends with: the kinds of middleware, what each needs at its site, and what its member is told of it.

    containers         the embedded kind: machines of namespaces, on the bridge `machines`
    libvirt            QEMU guests of a libvirtd of the site's own (`deploy.lab.libvirtd`), on the bridge `machines`
    openstack          an OpenStack of the site's own with real guests (`deploy.openstack`, profile `full`)
    openstack-small    the same with guests that Nova only pretends: for tests of everything that comes before a guest

A cloud runs at the intranet's host and listens on its loopback address, so nobody but the member reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.image.guest import newest
from deploy.lab import libvirtd
from deploy.lab.places import BASE, IMAGES, TESTBED, directory
from deploy.lab.topology import Site
from deploy.openstack.layout import Cloud, Profile
from deploy.openstack.operator import FEDERATION, GUESTS, INTRANET, PUBLIC
from deploy.openstack.running import options

ADDRESS = "127.0.0.1"
PORTAL = "portal"  # the image that portals of experiments run in, where machines are virtual
INTERNET_PREFIX = (
    "198.51.100.0/24"  # the lab's internet is not a public one, so a fetcher of images must be allowed to it
)
LIBVIRT_FLAVOURS = [
    {"name": "small", "vcpu": 1, "ram_mb": 128, "disk_gb": 1},  # as much as `tiny` needs
    {"name": "medium", "vcpu": 2, "ram_mb": 512, "disk_gb": 4},  # as much as `debian` needs
]


@dataclass(frozen=True)
class Lender:
    """One kind."""

    kind: str
    options: Callable[[Site, Path], dict[str, Any]]
    command: Callable[[Site], Sequence[str]] | None = None
    """What must run and be ready before the member, beside it; it says so itself (sd_notify(3))."""
    fetches: bool = False
    """Whether its member may reach the web, for images that users name by URL."""
    account: str | None = None
    """The local account of everybody who is lent something."""


def _containers(site: Site, place: Path) -> dict[str, Any]:
    return {
        "base": str(BASE),
        "images": {"testbed": str(TESTBED)} if TESTBED.exists() else {},
        "state": str(place / "machines"),
        "bridge": "machines",
        "subnet": site.machines,
        "gateway": site.machines_gateway,
    }


def _libvirt(site: Site, place: Path) -> dict[str, Any]:
    images = {image.name: image for name in ("tiny", "debian", PORTAL) if (image := newest(name, IMAGES))}
    return {
        "uri": libvirtd.uri(directory(site, "lender")),
        "owner": site.name,
        "state": str(place / "machines"),
        "accelerator": "tcg",  # finding out about KVM takes up to 20 s, each time that a lab begins anew
        "bridge": "machines",
        "subnet": site.machines,
        "gateway": site.machines_gateway,
        "flavours": LIBVIRT_FLAVOURS,
        "images": {
            name: {
                "path": str(image.disk),
                "kernel": str(image.kernel),
                "initrd": str(image.initrd),
                "cmdline": image.command_line,
                "user_data": image.user_data,
                "portal": name == PORTAL,
            }
            for name, image in images.items()
        },
        "fetch": {"folder": str(place / "images"), "allow": [INTERNET_PREFIX], "spare": 0},
        "boot_seconds": 1500,  # where others use the processors, too
        "shutdown_seconds": 10,
    }


def _openstack(site: Site, place: Path) -> dict[str, Any]:
    password = directory(site, "lender") / "data/federation.password"
    return {
        "site": site.name,
        "auth_url": f"http://{ADDRESS}:5000/v3",
        "network": INTRANET,
        "public_network": PUBLIC,
        "routed": True,
        "accounts": {FEDERATION: {"user": FEDERATION, "project": FEDERATION, "password_file": str(password)}},
        "images_from_urls": {"folder": str(place / "images"), "allow": [INTERNET_PREFIX], "spare": 0},
        "poll": 1.0,
        "timeouts": {"stalled": 60.0},  # what a killed Nova has forgotten
    }


def _openstack_with_guests(site: Site, place: Path) -> dict[str, Any]:
    images = {
        name: {"image": name, "user_data": found.user_data, "portal": name == PORTAL}
        for name in GUESTS
        if (found := newest(name, IMAGES))
    }
    return {**_openstack(site, place), "images": images}


def _cloud(profile: Profile) -> Callable[[Site], Sequence[str]]:
    def command(site: Site) -> Sequence[str]:
        state = directory(site, "lender")
        cloud = Cloud(state, ADDRESS, profile, site.machines, "machines")
        return ["-m", "deploy.openstack", "run", "--state", str(state), *options(cloud)]

    return command


LENDERS = {
    "containers": Lender("containers", _containers),
    "libvirt": Lender(
        "libvirt", _libvirt, lambda site: ["-m", "deploy.lab.libvirtd", str(directory(site, "lender"))], True
    ),
    "openstack": Lender("openstack", _openstack_with_guests, _cloud(Profile.FULL), True, FEDERATION),
    "openstack-small": Lender("openstack", _openstack, _cloud(Profile.SMALL), True, FEDERATION),
}
