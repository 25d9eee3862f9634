"""Where everything of one cloud lies, and what it is called. Data only."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deploy.openstack.errors import UnusablePlace

PROJECT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = PROJECT / ".lab/openstack"
LONGEST_SOCKET = 100  # octets; sun_path has 108 (unix(7))

HOST = "openstack"  # the name of the one host, the same in every cloud: a copied state must know its host again
REGION = "RegionOne"
DATABASES = ("keystone", "glance", "placement", "neutron", "nova_api", "nova_cell0", "nova", "cinder")
PORTS = {"keystone": 5000, "placement": 8778, "glance": 9292, "neutron": 9696, "nova": 8774, "cinder": 8776}
METADATA_PORT = 8775
ENDPOINTS = {  # type of service in the catalogue -> user of the service, path
    "identity": ("keystone", "/v3"),
    "placement": ("placement", ""),
    "image": ("glance", ""),
    "network": ("neutron", ""),
    "compute": ("nova", "/v2.1"),
    "block-storage": ("cinder", "/v3/%(project_id)s"),
}


class Profile(StrEnum):
    """How real it is; see the package."""

    SMALL = "small"
    FULL = "full"


@dataclass(frozen=True)
class Cloud:
    """One cloud: the directory that holds all of it, the IPv4 address it is served on, and how real it is.

    `public` is the prefix of its public network, whose first address is the host's; `uplink` the host's bridge that this is (`full`).
    """

    state: Path
    address: str
    profile: Profile = Profile.SMALL
    public: str = "203.0.113.0/24"  # TEST-NET-3 (RFC 5737)
    uplink: str | None = None

    def __post_init__(self) -> None:
        if not self.state.is_absolute() or len(str(self.socket("x" * 12))) > LONGEST_SOCKET:
            raise UnusablePlace(f"The state directory must be an absolute path of few letters, not {self.state}.")
        try:
            ipaddress.IPv4Address(self.address)
        except ValueError as error:
            raise UnusablePlace(f"{self.address!r} is no IPv4 address.") from error
        if self.profile is Profile.FULL and self.uplink is None:
            raise UnusablePlace("The guests of `full` need a bridge of the host for the public network: --uplink.")

    @property
    def data(self) -> Path:
        """What a template holds as well: databases, keys, images, the administrator's password."""
        return self.state / "data"

    @property
    def etc(self) -> Path:
        """Configuration, written anew at every start."""
        return self.state / "etc"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.state / "log"

    @property
    def secret_file(self) -> Path:
        """The password of the administrator and of all service users."""
        return self.data / "secret"

    @property
    def pid_file(self) -> Path:
        """Who runs it: pid, start time (so that another process of the same pid is not taken for it), profile, address …"""
        return self.state / "pid"

    def socket(self, name: str) -> Path:
        """The socket of a server that listens on no port."""
        return self.state / "run" / f"{name}.sock"

    def config(self, service: str) -> Path:
        """A service's main configuration file."""
        return self.etc / service / f"{service}.conf"

    def url(self, service: str, path: str = "") -> str:
        """Where a service answers."""
        return f"http://{self.address}:{PORTS[service]}{path}"

    @property
    def public_hosts(self) -> Sequence[ipaddress.IPv4Address]:
        """The addresses of the public network; the first one is the host's."""
        return list(ipaddress.IPv4Network(self.public).hosts())

    @property
    def auth_url(self) -> str:
        """Keystone, as every client is told it."""
        return self.url("keystone", "/v3")
