"""What a site's administrator has set up before a federation comes: flavours, an image, a public network, a network that all
machines stand in, with a router between the two, and a project with a user for the federation.

Everything is found by its name first, so it may be done again after it was interrupted.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.image.guest import newest
from deploy.openstack.api import Account, Client
from deploy.openstack.config import PHYSICAL_NETWORK
from deploy.openstack.layout import REGION, Cloud, Profile

FLAVOURS = {"tiny": (1, 128, 1), "small": (1, 512, 5), "medium": (2, 2048, 10), "large": (4, 8192, 40)}
HUGE = {"unplaceable": (2, 1 << 20, 10)}  # more memory than the one host has: what no valid host means
IMAGE = "debian"  # of a cloud that only pretends
GUESTS = ("tiny", "portal")  # images of real guests (deploy.image.guest)
FEDERATION = "federation"  # the project, and the user in it
PUBLIC = "public"
INTRANET = "intranet"
ROUTER = "edge"
INTRANET_SUBNET = {"cidr": "10.60.0.0/20", "dns_nameservers": []}
RESERVED = 9  # addresses of the public network that are left to the host and what else stands there
QUOTAS = {  # where each service keeps them
    "nova": ("/v2.1/os-quota-sets/{}", "quota_set", ("instances", "cores", "ram", "key_pairs")),
    "cinder": ("/v3/os-quota-sets/{}", "quota_set", ("volumes", "gigabytes", "snapshots", "backups")),
    "neutron": (
        "/v2.0/quotas/{}",
        "quota",
        ("network", "subnet", "port", "router", "floatingip", "security_group", "security_group_rule"),
    ),
}


def set_up(cloud: Cloud) -> None:
    """Set all of it up, and write `cloud.json`, which tells a client all that it needs."""
    told = cloud.state / "cloud.json"
    done = cloud.data / "set-up"
    account = federation(cloud)
    if not done.exists():
        admin = Client.administrator(cloud)
        _flavours(admin)
        if cloud.profile is Profile.FULL:
            _guest_images(admin)
        else:
            image(admin, IMAGE, b"\0" * (1 << 20), disk_format="raw", container_format="bare")
        _networks(admin, cloud)
        project(cloud, account)
        done.touch()
    _write_secret(told, json.dumps(describe(cloud, account), indent=2))


def federation(cloud: Cloud) -> Account:
    """The account of the federation; its password is made at the first start, and stands in a file that a member can be given."""
    path = cloud.data / f"{FEDERATION}.password"
    if not path.exists():
        _write_secret(path, secrets.token_hex(16))
    return Account(FEDERATION, FEDERATION, path.read_text())


def held(cloud: Cloud) -> list[str]:
    """What the federation's project holds, a line for each: kind and name."""
    client = Client(cloud, federation(cloud))
    project = f"project_id={client.project}"
    found = {
        "server": client.get("nova", "/v2.1/servers")["servers"],
        "keypair": [each["keypair"] for each in client.get("nova", "/v2.1/os-keypairs")["keypairs"]],
        "volume": client.get("cinder", "/v3/volumes")["volumes"],
        "image": client.get("glance", f"/v2/images?owner={client.project}")["images"],
        "network": client.get("neutron", f"/v2.0/networks?{project}")["networks"],
        "router": client.get("neutron", f"/v2.0/routers?{project}")["routers"],
        "port": client.get("neutron", f"/v2.0/ports?{project}")["ports"],
        "floating ip": client.get("neutron", f"/v2.0/floatingips?{project}")["floatingips"],
        "security group": [
            group
            for group in client.get("neutron", f"/v2.0/security-groups?{project}")["security_groups"]
            if group["name"] != "default"
        ],
    }
    return [f"{kind} {each.get('name') or each['id']}" for kind, all_of_it in found.items() for each in all_of_it]


def describe(cloud: Cloud, account: Account) -> dict[str, str]:
    """What a client is told: address and credentials."""
    return {
        "auth_url": cloud.auth_url,
        "region": REGION,
        "admin_password": cloud.secret_file.read_text(),
        "project": account.project,
        "user": account.user,
        "password": account.password,
        "image": IMAGE,
        "network": INTRANET,
        "public_network": PUBLIC,
    }


def project(
    cloud: Cloud, account: Account, roles: tuple[str, ...] = ("member",), limits: Mapping[str, int] | None = None
) -> str:
    """Make a project with a user of the given roles, without quotas but for `limits` (such as instances), and return its id."""
    admin = Client.administrator(cloud)
    made = _named(admin, "keystone", "/v3/projects", "project", {"name": account.project, "domain_id": "default"})
    user = {"name": account.user, "domain_id": "default", "password": account.password}
    person = _named(admin, "keystone", "/v3/users", "user", user)
    known = {role["name"]: role["id"] for role in admin.get("keystone", "/v3/roles")["roles"]}
    for role in roles:
        admin.put("keystone", f"/v3/projects/{made}/users/{person}/roles/{known[role]}")
    for service, (path, kind, names) in QUOTAS.items():
        admin.put(service, path.format(made), {kind: {name: (limits or {}).get(name, -1) for name in names}})
    return made


def image(admin: Client, name: str, content: bytes, **properties: str) -> str:
    """Store an image that everybody may use, and return its id."""
    found = admin.get("glance", f"/v2/images?name={name}")["images"]
    made = (
        found[0] if found else admin.post("glance", "/v2/images", {"name": name, "visibility": "public", **properties})
    )
    if made["status"] == "queued":
        admin.upload(f"/v2/images/{made['id']}/file", content)
    return str(made["id"])


def _guest_images(admin: Client) -> None:
    for name in GUESTS:
        guest = newest(name)
        if guest is None:
            continue
        kernel, initrd = (
            image(admin, f"{name}-{part.name}", part.read_bytes(), disk_format=kind, container_format=kind)
            for part, kind in ((guest.kernel, "aki"), (guest.initrd, "ari"))
        )
        image(
            admin,
            name,
            guest.disk.read_bytes(),
            disk_format=guest.disk_format,
            container_format="bare",
            kernel_id=kernel,
            ramdisk_id=initrd,
            os_command_line=guest.command_line,
            hw_machine_type="pc",
        )


def _flavours(admin: Client) -> None:
    known = {flavour["name"] for flavour in admin.get("nova", "/v2.1/flavors")["flavors"]}
    for name, (vcpus, ram, disk) in {**FLAVOURS, **HUGE}.items():
        if name not in known:
            admin.post("nova", "/v2.1/flavors", {"flavor": {"name": name, "vcpus": vcpus, "ram": ram, "disk": disk}})


def _networks(admin: Client, cloud: Cloud) -> None:
    network = {
        "name": PUBLIC,
        "router:external": True,
        "provider:network_type": "flat",
        "provider:physical_network": PHYSICAL_NETWORK,
    }
    made = _named(admin, "neutron", "/v2.0/networks", "network", network)
    first, *others = map(str, cloud.public_hosts)
    subnet = {
        "name": PUBLIC,
        "network_id": made,
        "ip_version": 4,
        "cidr": cloud.public,
        "gateway_ip": first,
        "enable_dhcp": False,
        "allocation_pools": [{"start": others[RESERVED - 1], "end": others[-1]}],
    }
    _named(admin, "neutron", "/v2.0/subnets", "subnet", subnet)
    inside = _named(admin, "neutron", "/v2.0/networks", "network", {"name": INTRANET, "shared": True})
    subnet = {"name": INTRANET, "network_id": inside, "ip_version": 4, **INTRANET_SUBNET}
    within = _named(admin, "neutron", "/v2.0/subnets", "subnet", subnet)
    edge = {"name": ROUTER, "external_gateway_info": {"network_id": made}}
    router = _named(admin, "neutron", "/v2.0/routers", "router", edge)
    if not admin.get("neutron", f"/v2.0/ports?device_id={router}&network_id={inside}")["ports"]:
        admin.put("neutron", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": within})


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _named(admin: Client, service: str, path: str, kind: str, fields: dict[str, Any]) -> str:
    found = admin.get(service, f"{path}?name={fields['name']}")[f"{kind}s"]
    made = found[0] if found else admin.post(service, path, {kind: fields})[kind]
    return str(made["id"])
