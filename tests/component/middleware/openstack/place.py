"""A place for the `openstack` kind: two projects in a real OpenStack, and a network that both of them see.

The cloud is one for all tests; each test has a site mark of its own, so that what it leaves behind is its own.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.openstack import operator
from deploy.openstack.api import Administrator
from deploy.openstack.layout import Cloud
from federation_member.middleware.contract import Account
from federation_member.middleware.openstack import OpenStackMiddleware
from federation_member.middleware.openstack.config import OpenStackConfig
from fedkit.protocol.lending import Flavour

ACCOUNT = Account("tests")
PASSWORD = "a password of tests"
SITE_NETWORK = {"cidr": "10.66.0.0/16", "gateway_ip": "10.66.0.1"}
FLAVOUR = Flavour(name="tiny", vcpu=1, ram_mb=128, disk_gb=1)
LISTS = (  # service, path, name of what may carry a mark
    ("nova", "/v2.1/servers/detail?all_tenants=1", "servers"),
    ("nova", "/v2.1/os-keypairs", "keypairs"),
    ("neutron", "/v2.0/ports", "ports"),
    ("neutron", "/v2.0/networks", "networks"),
    ("neutron", "/v2.0/subnets", "subnets"),
    ("neutron", "/v2.0/routers", "routers"),
    ("neutron", "/v2.0/security-groups", "security_groups"),
    ("neutron", "/v2.0/floatingips", "floatingips"),
    ("cinder", "/v3/{project}/volumes/detail?all_tenants=1", "volumes"),
    ("glance", "/v2/images?limit=1000", "images"),
    ("keystone", "/v3/projects", "projects"),
)


@dataclass
class OpenStackSite:
    """One site at a cloud that runs."""

    openstack: Cloud
    folder: Path  # for files of passwords
    prefix: str  # of the names of its projects
    kind: str = "federation_member.middleware.openstack:OpenStackMiddleware"
    flavour: Flavour = FLAVOUR
    image: str = operator.IMAGE
    account: Account = ACCOUNT
    crowd: int = 4
    stride: int = 97
    moments: tuple[float, ...] = (0.05, 0.3, 0.6, 0.9, 1.2, 1.6)
    site: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:12]}")
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """What would stand in member.toml."""
        files = {"tests": PASSWORD, "admin": self.openstack.secret_file.read_text()}
        for name, secret in files.items():
            (self.folder / name).write_text(secret)
        accounts = {
            name: {
                "user": f"{self.prefix}-{name}",
                "password_file": str(self.folder / "tests"),
                "project": f"{self.prefix}-{name}",
            }
            for name in ("tests", "shared")
        }
        return {
            "site": self.site,
            "auth_url": self.openstack.auth_url,
            "network": f"{self.prefix}-intranet",
            "public_network": operator.PUBLIC,
            "accounts": accounts,
            "admin": {"user": "admin", "password_file": str(self.folder / "admin"), "project": "admin"},
            "poll": 0.5,
        } | self.extra

    def middleware(self) -> OpenStackMiddleware:
        """As a member that starts makes it."""
        return OpenStackMiddleware(OpenStackConfig.model_validate(self.options))

    async def kill(self, key: str) -> None:
        """As the cloud's operator would; returns when it is gone."""
        await asyncio.to_thread(self._kill, key)

    def _kill(self, key: str) -> None:
        admin = Administrator(self.openstack)
        for server in self.servers(key):
            admin.delete("nova", f"/v2.1/servers/{server['id']}")

    def servers(self, key: str) -> list[dict[str, Any]]:
        """What Nova has under the key."""
        every = Administrator(self.openstack).get("nova", "/v2.1/servers/detail?all_tenants=1")["servers"]
        return [server for server in every if server["metadata"].get("fedmesh_key") == key]

    async def leftovers(self) -> list[str]:
        """What carries the site's mark, in whatever way."""
        return await asyncio.to_thread(self._leftovers)

    def _leftovers(self) -> list[str]:
        admin = Administrator(self.openstack)
        found = []
        for service, path, name in LISTS:
            things = admin.get(service, path.format(project=admin.project))[name]
            found += [f"{name}: {thing}" for thing in things if self.site in repr(thing) and not is_going(thing)]
        return found

    def clear(self) -> None:
        """Remove what a failed test left."""
        asyncio.run(self._delete_all())

    async def _delete_all(self) -> None:
        middleware = self.middleware()
        await middleware.start(lambda key: None)
        for owned in await middleware.list_owned():
            await middleware.delete(owned.key)
        for account in await middleware.list_accounts():
            await middleware.remove_account(account.name)
        await middleware.stop()


def is_going(thing: dict[str, Any]) -> bool:
    """Whether the cloud only has to finish with it."""
    return thing.get("OS-EXT-STS:task_state") == "deleting"


def prepare(cloud: Cloud, prefix: str) -> None:
    """Make the projects and the network, if they are not there."""
    for name in ("tests", "shared"):
        operator.project(cloud, operator.Account(f"{prefix}-{name}", f"{prefix}-{name}", PASSWORD))
    admin = Administrator(cloud)
    name = f"{prefix}-intranet"
    if admin.get("neutron", f"/v2.0/networks?name={name}")["networks"]:
        return
    network = admin.post("neutron", "/v2.0/networks", {"network": {"name": name, "shared": True}})["network"]["id"]
    subnet = {"network_id": network, "name": name, "ip_version": 4} | SITE_NETWORK
    made = admin.post("neutron", "/v2.0/subnets", {"subnet": subnet})["subnet"]["id"]
    public = admin.get("neutron", f"/v2.0/networks?name={operator.PUBLIC}")["networks"][0]["id"]
    body = {"router": {"name": name, "external_gateway_info": {"network_id": public}}}
    router = admin.post("neutron", "/v2.0/routers", body)["router"]["id"]
    admin.put("neutron", f"/v2.0/routers/{router}/add_router_interface", {"subnet_id": made})
