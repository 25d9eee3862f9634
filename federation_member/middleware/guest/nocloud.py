"""The disk that carries user data where no cloud serves them: cloud-init's NoCloud, an ISO 9660 image labelled `cidata`.

Source: cloud-init's reference, "NoCloud" and "Network configuration, version 1" (which every renderer knows and which finds
interfaces by their MAC address).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Literal

from pycdlib import PyCdlib

LABEL = "cidata"
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class Nic:
    """An interface of the machine; without an address it asks by DHCP, or has none. `mac` as in 52:54:00:12:34:56."""

    mac: str
    address: IPv4Interface | Literal["none"] | None = None
    gateway: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()

    def __post_init__(self) -> None:
        if not _MAC.fullmatch(self.mac):
            raise ValueError(f"{self.mac!r} is not a MAC address in lower-case hex")


def nocloud_iso(instance_id: str, hostname: str, user_data: bytes, nics: Sequence[Nic] = ()) -> bytes:
    """Return the image. A machine that finds another `instance_id` than before takes itself for a new one.

    Without `nics` the image says nothing of the network, and most systems then ask by DHCP.
    """
    contents = {
        "meta-data": _yaml({"instance-id": instance_id, "local-hostname": hostname}),
        "user-data": user_data,
    }
    if nics:
        contents["network-config"] = network_config(nics)
    iso = PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL)
    for number, (name, content) in enumerate(contents.items()):
        iso.add_fp(
            BytesIO(content),
            len(content),
            iso_path=f"/FILE{number}.;1",
            rr_name=name,
            joliet_path=f"/{name}",
        )
    image = BytesIO()
    iso.write_fp(image)
    iso.close()
    return image.getvalue()


def network_config(nics: Sequence[Nic]) -> bytes:
    """Network configuration, version 1; the first interface is eth0."""
    return _yaml({"version": 1, "config": [_interface(number, nic) for number, nic in enumerate(nics)]})


def _interface(number: int, nic: Nic) -> dict[str, Any]:
    subnet: dict[str, Any] = {"type": "dhcp4"}
    if nic.address == "none":
        subnet = {"type": "manual"}
    elif nic.address is not None:
        subnet = {"type": "static", "address": str(nic.address)}
        if nic.gateway is not None:
            subnet["gateway"] = str(nic.gateway)
        if nic.dns:
            subnet["dns_nameservers"] = [str(server) for server in nic.dns]
    return {"type": "physical", "name": f"eth{number}", "mac_address": nic.mac, "subnets": [subnet]}


def _yaml(value: dict[str, Any]) -> bytes:
    """JSON, which is YAML; each value on a line of its own, so that a shell without a parser can read it, too."""
    return (json.dumps(value, indent=1) + "\n").encode()
