"""The ports of machines, and the security group that they share.

A machine's ports are made before it, each with the machine's mark: its address is known before it runs, and no two machines can
ever run with the same ones, whatever answers get lost on the way.

The group belongs to the account, because Neutron counts groups (10 for a project by default): it is made with the first machine
and stays, as Neutron's own default group does.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from federation_member.middleware.contract import UnusableSpec
from federation_member.middleware.openstack.connection import Cloud, Empty
from federation_member.middleware.openstack.errors import InConflict, NotThere
from federation_member.middleware.openstack.kinds import Context, Described, Thing

SSH = 22


class FixedIp(BaseModel):
    """An address of a port."""

    ip_address: str = Field(max_length=64)
    subnet_id: str = ""


class Port(Described):
    """As Neutron tells it."""

    network_id: str
    device_id: str = ""
    device_owner: str = ""
    fixed_ips: tuple[FixedIp, ...] = ()
    security_groups: tuple[str, ...] = ()

    @property
    def address(self) -> str | None:
        """The first one, IPv4 before IPv6."""
        addresses = [fixed.ip_address for fixed in self.fixed_ips]
        return min(addresses, key=lambda address: ":" in address, default=None)


class Ports(BaseModel):
    """Of a bulk request."""

    ports: list[Port]


class GroupAnswer(BaseModel):
    """Of a request that makes a security group."""

    security_group: Thing


@dataclass(frozen=True)
class Place:
    """Where a machine gets a port: the id of a network, and of its security group, if it is not the machines' own.

    `address` is the one that it must be, or the cloud's choice (none at all is not to be had: Nova refuses such ports, even for
    machines that only carry frames). In a `verbatim` network nothing is filtered.
    """

    network: str
    group: str | None = None
    address: str | None = None
    verbatim: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """What Neutron is told of it, besides the group."""
        fields: dict[str, Any] = {"network_id": self.network}
        if self.verbatim:
            fields["port_security_enabled"] = False
        if self.address is not None:
            fields["fixed_ips"] = [{"ip_address": self.address}]
        return fields


class MachinePorts:
    """Makes, finds and removes them."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._groups: dict[str, str] = {}  # account to the id of its group
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, cloud: Cloud, key: str) -> list[Port]:
        """Those with this key's mark."""
        mark = self._context.marks.description(key)
        return [port for port in await self._list(cloud, description=mark) if port.description == mark]

    async def all(self, cloud: Cloud) -> list[Port]:
        """The account's."""
        return await self._list(cloud, project_id=await cloud.project_id())

    async def ensure(self, cloud: Cloud, key: str, name: str, places: list[Place], there: list[Port]) -> list[Port]:
        """One in each of `places`, in their order; `there` are the key's ports so far."""
        known = {port.network_id: port for port in sorted(there, key=lambda port: port.id, reverse=True)}
        missing = [place for place in places if place.network not in known]
        if missing:
            known |= {port.network_id: port for port in await self._make(cloud, key, name, missing)}
        return [known[place.network] for place in places]

    async def _make(self, cloud: Cloud, key: str, name: str, places: list[Place]) -> list[Port]:
        try:
            return await self._post(cloud, key, name, places)
        except (NotThere, UnusableSpec):
            if self._groups.pop(cloud.account, None) is None:
                raise
        return await self._post(cloud, key, name, places)  # somebody may have removed the group

    async def _post(self, cloud: Cloud, key: str, name: str, places: list[Place]) -> list[Port]:
        group = await self._group(cloud)
        mark = self._context.marks.description(key)
        ports = [
            {
                **place.fields,
                "name": name,
                "description": mark,
                "security_groups": [] if place.verbatim else [place.group or group],
            }
            for place in places
        ]
        return (await cloud.post("network", "/ports", {"ports": ports}, Ports)).ports

    async def remove(self, cloud: Cloud, key: str) -> None:
        """Remove them."""
        ports = await self.of(cloud, key)
        await asyncio.gather(*(cloud.delete("network", f"/ports/{port.id}") for port in ports))

    async def _list(self, cloud: Cloud, **query: str) -> list[Port]:
        fields = [
            "id",
            "name",
            "description",
            "network_id",
            "device_id",
            "device_owner",
            "fixed_ips",
            "security_groups",
        ]
        return await cloud.all("network", "/ports", "ports", Port, fields=fields, **query)

    # The group

    async def _group(self, cloud: Cloud) -> str:
        async with self._locks.setdefault(cloud.account, asyncio.Lock()):
            if cloud.account not in self._groups:
                self._groups[cloud.account] = await self._ensure_group(cloud)
            return self._groups[cloud.account]

    async def _ensure_group(self, cloud: Cloud) -> str:
        found = await self._find_groups(cloud)
        if found:
            group = found[0].id
        else:
            body = {"security_group": {"name": "fedmesh machines", "description": self._context.marks.base}}
            group = (await cloud.post("network", "/security-groups", body, GroupAnswer)).security_group.id
        for rule in self._rules(group):
            with suppress(InConflict):  # it is there
                await cloud.post("network", "/security-group-rules", {"security_group_rule": rule}, Empty)
        return group

    def _rules(self, group: str) -> list[dict[str, Any]]:
        rules: list[dict[str, Any]] = []
        for prefix in self._context.config.ssh_from:
            common = {"security_group_id": group, "direction": "ingress", "ethertype": f"IPv{prefix.version}"}
            common["remote_ip_prefix"] = str(prefix)
            rules.append(common | {"protocol": "tcp", "port_range_min": SSH, "port_range_max": SSH})
            rules.append(common | {"protocol": "icmp" if prefix.version == 4 else "ipv6-icmp"})
        return rules

    async def _find_groups(self, cloud: Cloud) -> list[Described]:
        mark = self._context.marks.base
        query = {"description": mark, "project_id": await cloud.project_id()}
        found = await cloud.all("network", "/security-groups", "security_groups", Described, **query)
        return sorted((group for group in found if group.description == mark), key=lambda group: group.id)
