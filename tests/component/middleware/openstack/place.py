"""A place for the `openstack` kind: two projects in a real OpenStack.

The cloud is one for all tests; each test has a site mark of its own, so that what it leaves behind is its own.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.openstack import operator
from deploy.openstack.api import Account as Login
from deploy.openstack.api import Client
from deploy.openstack.layout import Cloud
from federation_member.middleware.contract import Account
from federation_member.middleware.openstack import OpenStackMiddleware
from federation_member.middleware.openstack.config import OpenStackConfig
from federation_member.middleware.openstack.connection import NOVA, connect
from federation_member.middleware.openstack.marks import Marks
from fedkit.protocol.lending import Flavour

ACCOUNT = Account("tests")
PASSWORD = "a password of tests"
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
    stride: int = 389
    moments: tuple[float, ...] = (0.3, 1.2)
    site: str = field(default_factory=lambda: f"t-{uuid.uuid4().hex[:12]}")
    extra: dict[str, Any] = field(default_factory=dict)
    is_clean: bool = False  # when its leftovers were looked for last, there were none

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
            "network": operator.INTRANET,
            "public_network": operator.PUBLIC,
            "accounts": accounts,
            "admin": {"user": "admin", "password_file": str(self.folder / "admin"), "project": "admin"},
            "poll": 2.0,
        } | self.extra

    def middleware(self) -> OpenStackMiddleware:
        """As a member that starts makes it."""
        self.is_clean = False
        return OpenStackMiddleware(OpenStackConfig.model_validate(self.options))

    async def kill(self, key: str) -> None:
        """As the cloud's operator would; returns when it is gone."""
        await asyncio.to_thread(self._kill, key)

    def _kill(self, key: str) -> None:
        admin = Client.administrator(self.openstack)
        for server in self.servers(key):
            admin.delete("nova", f"/v2.1/servers/{server['id']}")

    def servers(self, key: str) -> list[dict[str, Any]]:
        """What Nova has under the key."""
        every = Client.administrator(self.openstack).get("nova", "/v2.1/servers/detail?all_tenants=1")["servers"]
        return [server for server in every if server["metadata"].get("fedmesh_key") == key]

    def untag(self, server: str) -> None:
        """Take all tags from a server, as its project may."""
        config = OpenStackConfig.model_validate(self.options)
        answer = connect(config.accounts[self.account.name], config).compute.delete(
            f"/servers/{server}/tags", microversion=NOVA
        )
        assert answer.status_code == 204

    async def leftovers(self) -> list[str]:
        """What carries the site's mark, in whatever way."""
        found = await asyncio.to_thread(self._leftovers)
        self.is_clean = not found
        return found

    def _leftovers(self) -> list[str]:
        admin = Client.administrator(self.openstack)
        found = []
        for service, path, name in LISTS:
            things = admin.get(service, path.format(project=admin.project))[name]
            found += [f"{name}: {thing}" for thing in things if self.site in repr(thing) and not self._stays(thing)]
        return found

    def _stays(self, thing: dict[str, Any]) -> bool:
        """Whether the cloud only has to finish with it, or it is the machines' security group, which stays with the account."""
        return thing.get("OS-EXT-STS:task_state") == "deleting" or thing.get("description") == Marks(self.site).base

    def clear(self) -> None:
        """Remove what a failed test left, and what stays."""
        if not self.is_clean:
            asyncio.run(self._delete_all())
        admin = Client.administrator(self.openstack)
        for group in admin.get("neutron", "/v2.0/security-groups")["security_groups"]:
            if group["description"] == Marks(self.site).base:
                admin.delete("neutron", f"/v2.0/security-groups/{group['id']}")

    async def _delete_all(self) -> None:
        middleware = self.middleware()
        await middleware.start(lambda key: None)
        for owned in await middleware.list_owned():
            await middleware.delete(owned.key)
        for account in await middleware.list_accounts():
            await middleware.remove_account(account.name)
        await middleware.stop()


def prepare(cloud: Cloud, prefix: str) -> None:
    """Make the projects, if they are not there."""
    for name in ("tests", "shared"):
        operator.project(cloud, login(prefix, name))


def login(prefix: str, name: str) -> Login:
    """Who may act in the project of the account `name`."""
    return Login(f"{prefix}-{name}", f"{prefix}-{name}", PASSWORD)
