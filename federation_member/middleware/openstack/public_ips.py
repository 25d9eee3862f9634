"""Public addresses that were ordered for a machine: a floating IP and a security group, both with the order's mark.

Made in this order: the group with its rules, the group at the machine's port, the floating IP at that port; so an address never
lets in what its rules don't say. Removed the other way round. A group joins the port beside those that it has: what the operator
lets in (`ssh_from`) still comes in.

Neutron keeps the floating IP when the machine goes, with no port; the order then says so.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import ClassVar

from pydantic import BaseModel, Field

from federation_member.middleware.contract import InstanceRequest, Owned, Status, UnusableSpec
from federation_member.middleware.openstack.connection import Cloud, Empty, Service
from federation_member.middleware.openstack.errors import InConflict, NotThere
from federation_member.middleware.openstack.kinds import Context, Described, until_gone
from federation_member.middleware.openstack.lookups import Networks
from federation_member.middleware.openstack.ports import MachinePorts, Port
from federation_member.middleware.openstack.rules import Groups
from fedkit.protocol.lending import Instance, PublicIpSpec, first_rules

PUBLIC_IP = "public_ip"
UNFINISHED = "The address is not complete; create it again to go on, or delete it."
ALONE = "The machine that the address belonged to is gone."


class FloatingIp(Described):
    """As Neutron tells it."""

    floating_ip_address: str = Field(max_length=64)
    port_id: str | None = None
    status: str = ""


class OneFloatingIp(BaseModel):
    """An answer with one."""

    floatingip: FloatingIp


class OnePort(BaseModel):
    """An answer with one."""

    port: Port


class PublicIpKind:
    """Floating IPs."""

    name: ClassVar[str] = PUBLIC_IP
    services: ClassVar[tuple[Service, ...]] = ("network",)

    def __init__(self, context: Context, networks: Networks, groups: Groups) -> None:
        """`groups` are the security groups of public addresses."""
        self._context, self._marks = context, context.marks
        self._networks, self._groups = networks, groups
        self._ports = MachinePorts(context)
        # Of ports: their list of groups is read and written.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def create(self, cloud: Cloud, key: str, request: InstanceRequest) -> Owned:
        """Make what is missing of it; raises `NoCapacity` or `NoQuota` when there are no more addresses."""
        spec = request.spec
        if not isinstance(spec, PublicIpSpec):
            raise UnusableSpec("This is no public address.")
        if (there := await self._find(cloud, key)) is not None:
            return _owned(key, there)
        port = await self._port(cloud, spec.machine)
        group = await self._groups.ensure(cloud, key, spec.name, first_rules(spec), inside=False)
        await self._join(cloud, port.id, group)
        public = await self._networks.public(cloud)
        body = {"floating_network_id": public.id, "port_id": port.id, "description": self._marks.description(key)}
        try:
            made = await cloud.post("network", "/floatingips", {"floatingip": body}, OneFloatingIp)
        except (NotThere, InConflict) as error:  # no router between the networks, or the machine has an address
            raise UnusableSpec(error.message) from error
        return _owned(key, made.floatingip)

    async def find(self, cloud: Cloud, key: str) -> Owned | None:
        """As Neutron tells it."""
        if (there := await self._find(cloud, key)) is not None:
            return _owned(key, there)
        return _unfinished(key) if await self._groups.id_of(cloud, key) else None

    async def delete(self, cloud: Cloud, key: str) -> None:
        """Give the address back, and take the group from whichever port has it."""
        for one in await self._all(cloud, key):
            await cloud.delete("network", f"/floatingips/{one.id}")

        async def is_gone() -> bool:
            return not await self._all(cloud, key)

        await until_gone(self._context, f"the address {key}", is_gone)
        while (group := await self._groups.id_of(cloud, key)) is not None:
            users = await cloud.all("network", "/ports", "ports", Port, security_groups=group)
            await asyncio.gather(*(self._leave(cloud, port.id, group) for port in users))
            await self._groups.remove(cloud, key)

    async def owned(self, cloud: Cloud) -> list[Owned]:
        """Addresses, and groups without one."""
        addresses, left = await asyncio.gather(
            cloud.all("network", "/floatingips", "floatingips", FloatingIp, project_id=await cloud.project_id()),
            self._groups.keys(cloud),
        )
        found = {key: _unfinished(key) for key in left}
        for one in addresses:
            if (key := self._marks.key_of_description(one.description)) is not None:
                found[key] = _owned(key, one)
        return list(found.values())

    async def _find(self, cloud: Cloud, key: str) -> FloatingIp | None:
        return next(iter(await self._all(cloud, key)), None)

    async def _all(self, cloud: Cloud, key: str) -> list[FloatingIp]:
        """Those with this key's mark; several only after an answer was lost."""
        mark = self._marks.description(key)
        found = await cloud.all("network", "/floatingips", "floatingips", FloatingIp, description=mark)
        return sorted((one for one in found if one.description == mark), key=lambda one: (one.port_id is None, one.id))

    async def _port(self, cloud: Cloud, machine: str) -> Port:
        """The machine's port in the site's network, which is the one that public addresses lead to."""
        site = await self._networks.site(cloud)
        for port in await self._ports.of(cloud, machine):
            if port.network_id == site.id:
                return port
        raise UnusableSpec(f"There is no machine {machine} here.")

    async def _join(self, cloud: Cloud, port_id: str, group: str) -> None:
        async with self._locks.setdefault(port_id, asyncio.Lock()):
            port = (await cloud.get("network", f"/ports/{port_id}", OnePort)).port
            if group not in port.security_groups:
                await self._set_groups(cloud, port_id, [*port.security_groups, group])

    async def _leave(self, cloud: Cloud, port_id: str, group: str) -> None:
        async with self._locks.setdefault(port_id, asyncio.Lock()):
            try:
                port = (await cloud.get("network", f"/ports/{port_id}", OnePort)).port
                await self._set_groups(cloud, port_id, [other for other in port.security_groups if other != group])
            except NotThere:
                return  # the machine went meanwhile

    async def _set_groups(self, cloud: Cloud, port_id: str, groups: list[str]) -> None:
        await cloud.put("network", f"/ports/{port_id}", {"port": {"security_groups": groups}}, Empty)


def _owned(key: str, there: FloatingIp) -> Owned:
    status, reason = Status.RUNNING, ""
    if there.port_id is None:
        status, reason = Status.FAILED, ALONE
    elif there.status == "ERROR":
        status, reason = Status.FAILED, "The cloud says no more than that the address failed."
    return Owned(key, PUBLIC_IP, status, _instance(there), reason)


def _instance(there: FloatingIp) -> Instance:
    return Instance(name=there.floating_ip_address, public_address=there.floating_ip_address)


def _unfinished(key: str) -> Owned:
    return Owned(key, PUBLIC_IP, Status.FAILED, Instance(name=""), UNFINISHED)
