"""The public address that a machine has from the start, where the configuration says `public_addresses`."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel, Field

from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.kinds import Context, Described
from federation_member.middleware.openstack.lookups import Networks
from federation_member.middleware.openstack.ports import Port


class FloatingIp(Described):
    """As Neutron tells it."""

    floating_ip_address: str = Field(max_length=64)
    port_id: str | None = None


class OneFloatingIp(BaseModel):
    """An answer with one."""

    floatingip: FloatingIp


class Addresses:
    """Makes, finds and removes them; the mark says that it is the machine's own, not one that was ordered for it."""

    def __init__(self, context: Context, networks: Networks) -> None:
        self._marks = context.marks
        self._networks = networks

    async def ensure(self, cloud: Cloud, key: str, port: Port) -> str:
        """The address; raises `NoCapacity` or `NoQuota` when there are no more."""
        found = await self.of(cloud, key)
        if found:
            return found[0].floating_ip_address
        public = await self._networks.public(cloud)
        body = {"floating_network_id": public.id, "port_id": port.id, "description": self._mark(key)}
        made = await cloud.post("network", "/floatingips", {"floatingip": body}, OneFloatingIp)
        return made.floatingip.floating_ip_address

    async def of(self, cloud: Cloud, key: str) -> list[FloatingIp]:
        """Those with this key's mark."""
        mark = self._mark(key)
        found = await cloud.all("network", "/floatingips", "floatingips", FloatingIp, description=mark)
        return sorted((one for one in found if one.description == mark), key=lambda one: one.id)

    async def remove(self, cloud: Cloud, key: str) -> None:
        """Give it back."""
        found = await self.of(cloud, key)
        await asyncio.gather(*(cloud.delete("network", f"/floatingips/{one.id}") for one in found))

    async def keys(self, cloud: Cloud) -> set[str]:
        """Whose addresses there are."""
        found = await cloud.all(
            "network", "/floatingips", "floatingips", FloatingIp, project_id=await cloud.project_id()
        )
        texts = [one.description or "" for one in found]
        keys = {
            self._marks.key_of_description(text.removesuffix(MACHINES)) for text in texts if text.endswith(MACHINES)
        }
        return {key for key in keys if key is not None}

    def _mark(self, key: str) -> str:
        return self._marks.description(key) + MACHINES


MACHINES = " machine"  # ends the mark
