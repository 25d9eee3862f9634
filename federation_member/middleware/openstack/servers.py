"""Servers as Nova tells them, and what that means in the contract's words."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from federation_member.middleware.contract import Owned, Status
from federation_member.middleware.guest import ACCOUNT
from federation_member.middleware.openstack.connection import Cloud, Empty
from federation_member.middleware.openstack.errors import NotThere
from federation_member.middleware.openstack.kinds import Thing
from federation_member.middleware.openstack.marks import Marks
from fedkit.protocol.lending import Flavour, Instance, Power

COMPUTE = "compute"
ADDRESS, PUBLIC_ADDRESS, HOST_KEY = "fedmesh_address", "fedmesh_public_address", "fedmesh_host_key"  # of metadata
GONE = frozenset({"DELETED", "SOFT_DELETED"})
BEING_MADE = frozenset({"BUILD", "REBUILD"})
POWER = {
    "PAUSED": Power.PAUSED,
    "SUSPENDED": Power.PAUSED,
    "SHUTOFF": Power.STOPPED,
    "SHELVED": Power.STOPPED,
    "SHELVED_OFFLOADED": Power.STOPPED,
}


class ServersFlavour(BaseModel):
    """Of a server, as it was when it was made."""

    original_name: str = Field(max_length=128)
    vcpus: int = Field(ge=1)
    ram: int = Field(ge=1)
    disk: int = Field(ge=0)


class Fault(BaseModel):
    """Why a server could not be made."""

    message: str = ""


class Server(Thing):
    """One server. Fields that Nova leaves out for servers in cells that are down have defaults."""

    name: str = ""
    status: str = Field(max_length=64)
    created: str = ""
    updated: str = ""
    task_state: str | None = Field(default=None, alias="OS-EXT-STS:task_state")
    metadata: dict[str, str] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    flavor: ServersFlavour | None = None
    fault: Fault = Fault()

    @property
    def is_gone(self) -> bool:
        """Whether it only stands in Nova's books."""
        return self.status in GONE

    @property
    def is_going(self) -> bool:
        """Whether somebody asked for its end."""
        return self.task_state in ("deleting", "soft-deleting")


class OneServer(BaseModel):
    """An answer with one server."""

    server: Server


def owned(key: str, server: Server) -> Owned:
    """The machine, as the contract tells it."""
    return Owned(key, COMPUTE, *_status(server, _instance(server)))


def _status(server: Server, instance: Instance) -> tuple[Status, Instance, str]:
    if server.is_going:
        return Status.FAILED, instance, "The cloud is deleting the machine."
    if server.status == "ERROR":
        return Status.FAILED, instance, server.fault.message or "The cloud says no more than that the machine failed."
    if server.status in BEING_MADE:
        doing = f": {server.task_state.replace('_', ' ')}" if server.task_state else ""
        return Status.CREATING, instance, f"The cloud is making the machine{doing}."
    return Status.RUNNING, instance, ""


def _instance(server: Server) -> Instance:
    flavour = server.flavor
    known = flavour and Flavour(
        name=flavour.original_name, vcpu=flavour.vcpus, ram_mb=flavour.ram, disk_gb=flavour.disk
    )
    return Instance(
        name=server.name[:128],
        flavour=known or None,
        address=server.metadata.get(ADDRESS),
        public_address=server.metadata.get(PUBLIC_ADDRESS),
        user=ACCOUNT,
        host_keys=[server.metadata[HOST_KEY]] if HOST_KEY in server.metadata else [],
        power=POWER.get(server.status, Power.RUNNING),
    )


def the_one(servers: list[Server]) -> Server | None:
    """Of several servers under one key, the one that counts: one that works before one that failed, then the oldest."""
    there = [server for server in servers if not server.is_gone]
    return min(there, key=lambda one: (one.is_going, one.status == "ERROR", one.created, one.id), default=None)


async def with_key(cloud: Cloud, marks: Marks, key: str) -> list[Server]:
    """Every server with this key's tag; several only after an answer was lost."""
    return await _list(cloud, tags=f"{marks.site_tag},{marks.key_tag(key)}")


async def of_site(cloud: Cloud, marks: Marks) -> list[Server]:
    """Every server of ours that the account has."""
    return await _list(cloud, tags=marks.site_tag)


async def changed_since(cloud: Cloud, moment: str) -> list[Server]:
    """Every server of the account, whoever's, that changed or went since `moment` by the cloud's clock."""
    return await _list(cloud, **{"changes-since": moment})


async def _list(cloud: Cloud, **query: str) -> list[Server]:
    return await cloud.all("compute", "/servers/detail", "servers", Server, limit=1000, **query)


async def show(cloud: Cloud, server_id: str) -> Server | None:
    """The server with this id."""
    try:
        return (await cloud.get("compute", f"/servers/{server_id}", OneServer)).server
    except NotThere:
        return None


async def act(cloud: Cloud, server: Server, action: str, details: dict[str, Any] | None = None) -> None:
    """Have Nova do something to it."""
    await cloud.post("compute", f"/servers/{server.id}/action", {action: details}, Empty)
