"""Networks: a network with one subnet and, where the configuration says `routed`, a router to the outside.

Made in this order, each with the mark: network, security group, subnet, router, its place in the subnet. Removed the other way round;
Neutron removes the ports of its own (DHCP) with the network.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from federation_member.middleware.contract import InstanceRequest, Owned, Status, UnusableSpec
from federation_member.middleware.openstack.connection import Cloud, Empty, Service
from federation_member.middleware.openstack.errors import InConflict, NotThere
from federation_member.middleware.openstack.kinds import Context, Described, Thing, until_gone
from federation_member.middleware.openstack.lookups import Network, Networks
from federation_member.middleware.openstack.marks import Marks
from federation_member.middleware.openstack.rules import Groups
from fedkit.protocol.lending import Instance, NetworkSpec

NETWORK = "network"
WHOLE = 1500  # octets of a frame's content that machines elsewhere expect to pass
UNFINISHED = "The network is not complete; create it again to go on, or delete it."


class Subnet(Described):
    """As Neutron tells it."""

    network_id: str
    cidr: str = Field(max_length=43)


class OneNetwork(BaseModel):
    """An answer with one."""

    network: Network


class OneSubnet(BaseModel):
    """An answer with one."""

    subnet: Subnet


class OneRouter(BaseModel):
    """An answer with one."""

    router: Described


class RoutersPort(Thing):
    """A port of a router."""

    network_id: str
    device_id: str


async def networks_with_key(cloud: Cloud, marks: Marks, key: str) -> list[Network]:
    """Those with this key's mark; several only after an answer was lost."""
    mark = marks.description(key)
    found = await cloud.all("network", "/networks", "networks", Network, description=mark)
    return sorted((one for one in found if one.description == mark), key=lambda one: (not one.subnets, one.id))


async def network_with_key(cloud: Cloud, marks: Marks, key: str) -> Network | None:
    """The one that counts."""
    return next(iter(await networks_with_key(cloud, marks, key)), None)


class NetworkKind:
    """Private networks."""

    name: ClassVar[str] = NETWORK
    services: ClassVar[tuple[Service, ...]] = ("network",)

    def __init__(self, context: Context, networks: Networks, groups: Groups) -> None:
        """`groups` are the security groups of ordered networks."""
        self._context, self._marks, self._networks, self._groups = context, context.marks, networks, groups

    async def create(self, cloud: Cloud, key: str, request: InstanceRequest) -> Owned:
        """Make what is missing of it."""
        spec = request.spec
        if not isinstance(spec, NetworkSpec):
            raise UnusableSpec("This is no network.")
        if spec.verbatim and spec.rules:
            raise UnusableSpec("A network that frames pass as they are takes no rules; leave them out.")
        mark = self._marks.description(key)
        network = await network_with_key(cloud, self._marks, key)
        if network is None:
            network = await self._make_network(cloud, spec, mark)
        subnet = next(iter(await self._subnets(cloud, network_id=network.id)), None)
        if subnet is None:
            await self._groups.ensure(cloud, key, spec.name, spec.rules, inside=True)
            subnet = await self._make_subnet(cloud, network, spec, mark)
        if self._context.config.routed and spec.gateway is not None:
            await self._ensure_router(cloud, subnet, spec, mark)
        return _owned(key, network, subnet)

    async def _make_network(self, cloud: Cloud, spec: NetworkSpec, mark: str) -> Network:
        fields: dict[str, Any] = {"name": spec.name, "description": mark}
        if not spec.verbatim:
            return (await cloud.post("network", "/networks", {"network": fields}, OneNetwork)).network
        fields |= {"port_security_enabled": False, "mtu": WHOLE}
        try:
            return (await cloud.post("network", "/networks", {"network": fields}, OneNetwork)).network
        except UnusableSpec as error:
            raise UnusableSpec(
                f"A network that frames pass as they are needs frames of {WHOLE} octets and port security that can be off; "
                f"the cloud says: {error.message}"
            ) from error

    async def _make_subnet(self, cloud: Cloud, network: Network, spec: NetworkSpec, mark: str) -> Subnet:
        body: dict[str, Any] = {
            "network_id": network.id,
            "name": spec.name,
            "description": mark,
            "ip_version": 4,
            "cidr": spec.cidr,
            "gateway_ip": spec.gateway,
            "enable_dhcp": not spec.verbatim,  # its server would answer machines of other sites, too
        }
        if spec.verbatim:
            body["allocation_pools"] = [upper_half(spec.cidr)]
        return (await cloud.post("network", "/subnets", {"subnet": body}, OneSubnet)).subnet

    async def _ensure_router(self, cloud: Cloud, subnet: Subnet, spec: NetworkSpec, mark: str) -> None:
        routers = await self._routers(cloud, mark)
        if routers:
            router = routers[0]
        else:
            public = await self._networks.public(cloud)
            gateway = {"network_id": public.id}
            body = {"router": {"name": spec.name, "description": mark, "external_gateway_info": gateway}}
            router = (await cloud.post("network", "/routers", body, OneRouter)).router
        if not await self._router_ports(cloud, device_id=router.id, network_id=subnet.network_id):
            await cloud.put("network", f"/routers/{router.id}/add_router_interface", {"subnet_id": subnet.id}, Empty)

    async def find(self, cloud: Cloud, key: str) -> Owned | None:
        """As Neutron tells it."""
        network = await network_with_key(cloud, self._marks, key)
        if network is not None:
            return _owned(key, network, next(iter(await self._subnets(cloud, network_id=network.id)), None))
        left = await self._routers(cloud, self._marks.description(key)) or await self._groups.id_of(cloud, key)
        return _unfinished(key) if left else None

    async def delete(self, cloud: Cloud, key: str) -> None:
        """Remove all of it; raises `StillUsed` while something that is not ours stands in it."""
        for router in await self._routers(cloud, self._marks.description(key)):
            for port in await self._router_ports(cloud, device_id=router.id):
                await self._unplug(cloud, router.id, port.id)
            await cloud.delete("network", f"/routers/{router.id}")
        for network in await networks_with_key(cloud, self._marks, key):
            await cloud.delete("network", f"/networks/{network.id}")

        async def is_gone() -> bool:
            return not await networks_with_key(cloud, self._marks, key)

        await until_gone(self._context, f"the network {key}", is_gone)
        await self._groups.remove(cloud, key)

    async def _unplug(self, cloud: Cloud, router: str, port: str) -> None:
        try:
            await cloud.put("network", f"/routers/{router}/remove_router_interface", {"port_id": port}, Empty)
        except (NotThere, InConflict):
            return  # it went meanwhile, or is the gateway, which goes with the router

    async def owned(self, cloud: Cloud) -> list[Owned]:
        """Networks, and routers and security groups without one."""
        mine = {"project_id": await cloud.project_id()}
        networks, subnets, routers, groups = await asyncio.gather(
            cloud.all("network", "/networks", "networks", Network, **mine),
            self._subnets(cloud, **mine),
            cloud.all("network", "/routers", "routers", Described, **mine),
            self._groups.keys(cloud),
        )
        of_network = {subnet.network_id: subnet for subnet in subnets}
        found = {key: _unfinished(key) for key in groups}
        for router in routers:
            if (key := self._marks.key_of_description(router.description)) is not None:
                found[key] = _unfinished(key)
        for network in networks:
            if (key := self._marks.key_of_description(network.description)) is not None:
                found[key] = _owned(key, network, of_network.get(network.id))
        return list(found.values())

    async def _subnets(self, cloud: Cloud, **query: str) -> list[Subnet]:
        return await cloud.all("network", "/subnets", "subnets", Subnet, **query)

    async def _routers(self, cloud: Cloud, mark: str) -> list[Described]:
        found = await cloud.all("network", "/routers", "routers", Described, description=mark)
        return [router for router in found if router.description == mark]

    async def _router_ports(self, cloud: Cloud, **query: str) -> list[RoutersPort]:
        return await cloud.all("network", "/ports", "ports", RoutersPort, **query)


def upper_half(cidr: str) -> dict[str, str]:
    """What the cloud may give away itself, to portals; who joins such a network brings a low address."""
    try:
        network = IPv4Network(cidr)
        start = network[network.num_addresses // 2]
        return {"start": str(start), "end": str(network[-2])}
    except (ValueError, IndexError) as error:
        raise UnusableSpec(f"{cidr} is no network for machines: {error}.") from error


def _owned(key: str, network: Network, subnet: Subnet | None) -> Owned:
    if subnet is None:
        return Owned(key, NETWORK, Status.FAILED, Instance(name=network.name[:128]), UNFINISHED)
    return Owned(key, NETWORK, Status.RUNNING, Instance(name=network.name[:128], cidr=subnet.cidr))


def _unfinished(key: str) -> Owned:
    return Owned(key, NETWORK, Status.FAILED, Instance(name=""), UNFINISHED)
