"""Machines: a server with one port in the site's network and one in each network that was ordered.

Making one: look for it; make its ports (with its mark); make the server with those ports (with its mark, its address and its
host key as metadata). A crash after any step is continued by the next `create`. If the answer to the last step is lost, a second
server may come to be; both name the same ports, Nova gives them to one, the other fails and is removed when it is seen.

The machine gets its keys and its tunnel by user data on a config drive, so it needs neither a Nova keypair nor a metadata service.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, ClassVar

import structlog
from pydantic import BaseModel

from federation_member.middleware.contract import (
    ComputeRequest,
    InstanceRequest,
    Owned,
    Status,
    Unavailable,
    UnusableSpec,
)
from federation_member.middleware.guest import OPENSTACK_LIMIT, Guest, HostKey, render
from federation_member.middleware.openstack import servers
from federation_member.middleware.openstack.addresses import Addresses
from federation_member.middleware.openstack.connection import Cloud, Service
from federation_member.middleware.openstack.errors import NotThere, fault
from federation_member.middleware.openstack.images import Chosen, Images
from federation_member.middleware.openstack.kinds import Context, InProgress, Thing, until_gone
from federation_member.middleware.openstack.lookups import Flavours, Networks
from federation_member.middleware.openstack.networks import network_with_key
from federation_member.middleware.openstack.ports import MachinePorts, Place, Port
from federation_member.middleware.openstack.rules import Groups
from federation_member.middleware.openstack.servers import ADDRESS, COMPUTE, HOST_KEY, PUBLIC_ADDRESS, Server, the_one
from fedkit.protocol.lending import ComputeSpec, Instance

log = structlog.get_logger()
LEFTOVER = "There is no machine, only what was made for it; create it again to go on, or delete it."


class Accepted(BaseModel):
    """Nova's answer to an order."""

    server: Thing


class Compute:
    """Servers."""

    name: ClassVar[str] = COMPUTE
    services: ClassVar[tuple[Service, ...]] = ("compute", "network", "image")

    def __init__(
        self, context: Context, images: Images, flavours: Flavours, networks: Networks, groups: Groups
    ) -> None:
        """`groups` are the security groups of ordered networks."""
        self._context, self._marks = context, context.marks
        self._images, self._flavours, self._networks = images, flavours, networks
        self._groups = groups
        self._ports = MachinePorts(context)
        self._addresses = Addresses(context, networks)

    async def create(self, cloud: Cloud, key: str, request: InstanceRequest) -> Owned:
        """Begin to make the server; the answer is `creating`, and `running` when it is called again later."""
        if not isinstance(request, ComputeRequest):
            raise UnusableSpec("A machine is ordered with a flavour.")
        server, ports = await self._look(cloud, key)
        if server is None:
            try:
                return await self._make(cloud, key, request, ports)
            except NotThere as error:  # what we remember is no longer so
                self._flavours.forget(cloud)
                self._networks.forget(cloud)
                raise Unavailable(f"The cloud has changed meanwhile: {error.message}") from error
        if server.status == "ERROR" and not server.is_going:
            raise fault(server.fault.message)
        return servers.owned(key, server)

    async def _make(self, cloud: Cloud, key: str, request: ComputeRequest, there: list[Port]) -> Owned:
        spec = request.spec
        host_key = HostKey.generate()
        try:
            image = await self._images.choose(cloud, key, spec)
        except InProgress as progress:
            return Owned(
                key, COMPUTE, Status.CREATING, Instance(name=spec.name, flavour=request.flavour), str(progress)
            )
        user_data = _user_data(request, image, host_key)
        flavour, places = await asyncio.gather(
            self._flavours.id_of(cloud, request.flavour), self._places(cloud, request)
        )
        ports = await self._ports.ensure(cloud, key, spec.name, places, there)
        public = await self._addresses.ensure(cloud, key, ports[0]) if self._context.config.public_addresses else None
        info = {ADDRESS: ports[0].address, PUBLIC_ADDRESS: public, HOST_KEY: host_key.public}
        body: dict[str, Any] = {
            "name": spec.name,
            "imageRef": image.id,
            "flavorRef": flavour,
            "networks": [{"port": port.id} for port in ports],
            "user_data": base64.b64encode(user_data).decode(),
            "config_drive": True,
            "tags": [self._marks.site_tag, self._marks.key_tag(key)],
            "metadata": self._marks.metadata(key) | {name: value for name, value in info.items() if value},
        }
        made = (await cloud.post("compute", "/servers", {"server": body}, Accepted)).server
        log.info("server_ordered", key=key, account=cloud.account, server=made.id)
        instance = Instance(name=spec.name, flavour=request.flavour, address=ports[0].address, public_address=public)
        return Owned(key, COMPUTE, Status.CREATING, instance, "The cloud is making the machine.")

    async def _places(self, cloud: Cloud, request: ComputeRequest) -> list[Place]:
        """The site's network, then those that were ordered."""
        site = await self._networks.site(cloud)
        joined = await asyncio.gather(*(self._joined(cloud, key, request.spec) for key in request.networks))
        return [Place(site.id), *joined]

    async def _joined(self, cloud: Cloud, key: str, spec: ComputeSpec) -> Place:
        network, group = await asyncio.gather(network_with_key(cloud, self._marks, key), self._groups.id_of(cloud, key))
        if network is None or not network.subnets:
            raise UnusableSpec(f"There is no network {key} here.")
        return Place(network.id, group, spec.addresses.get(key), verbatim=not network.port_security_enabled)

    async def find(self, cloud: Cloud, key: str) -> Owned | None:
        """As Nova tells it; without a server, what was made for one."""
        server, ports = await self._look(cloud, key)
        if server is not None:
            return servers.owned(key, server)
        return _leftover(key) if ports or await self._addresses.of(cloud, key) else None

    async def server(self, cloud: Cloud, key: str) -> Server | None:
        """The server itself."""
        return (await self._look(cloud, key))[0]

    async def _look(self, cloud: Cloud, key: str) -> tuple[Server | None, list[Port]]:
        """The server and the ports under `key`; a server whose tags somebody took is found by its port, and gets them again."""
        found, ports = await asyncio.gather(servers.with_key(cloud, self._marks, key), self._ports.of(cloud, key))
        server = the_one(found)
        if server is not None and server.status not in servers.BEING_MADE:
            await self._remove_doubles(cloud, key, [one for one in found if one.id != server.id])
        return server or await self._mark_again(cloud, key, await self._untagged(cloud, ports, found)), ports

    async def _remove_doubles(self, cloud: Cloud, key: str, doubles: list[Server]) -> None:
        for double in doubles:
            if not double.is_gone and not double.is_going:
                log.warning("double_deleted", key=key, server=double.id)
                await cloud.delete("compute", f"/servers/{double.id}")

    async def _untagged(self, cloud: Cloud, ports: list[Port], tagged: list[Server]) -> list[Server]:
        """The servers that hold our ports, and have not our tags."""
        holders = {port.device_id for port in ports if port.device_id} - {server.id for server in tagged}
        found = await asyncio.gather(*(servers.show(cloud, holder) for holder in sorted(holders)))
        return [server for server in found if server is not None and not server.is_gone and not server.is_going]

    async def _mark_again(self, cloud: Cloud, key: str, untagged: list[Server]) -> Server | None:
        server = the_one(untagged)
        if server is not None:
            log.warning("server_marked_again", key=key, server=server.id)
            tags = sorted({*server.tags, self._marks.site_tag, self._marks.key_tag(key)})
            await cloud.put("compute", f"/servers/{server.id}/tags", {"tags": tags}, Tags)
        return server

    async def delete(self, cloud: Cloud, key: str) -> None:
        """Remove the server, wait until it is gone, then remove its public address and its ports."""
        self._images.release(key)
        found, ports = await asyncio.gather(servers.with_key(cloud, self._marks, key), self._ports.of(cloud, key))
        found += await self._untagged(cloud, ports, found)
        await asyncio.gather(self._addresses.remove(cloud, key), *(self._end(cloud, server) for server in found))
        await self._ports.remove(cloud, key)

    async def _end(self, cloud: Cloud, server: Server) -> None:
        if not server.is_gone:
            await cloud.delete("compute", f"/servers/{server.id}")

        async def is_gone() -> bool:
            now = await servers.show(cloud, server.id)
            if now is not None and now.status == "SOFT_DELETED":
                await servers.act(cloud, now, "forceDelete")
            return now is None or now.status == "DELETED"

        await until_gone(self._context, f"the machine {server.id}", is_gone)

    async def owned(self, cloud: Cloud) -> list[Owned]:
        """Servers, and leftovers of them."""
        ours, ports, addresses = await asyncio.gather(
            servers.of_site(cloud, self._marks), self._ports.all(cloud), self._addresses.keys(cloud)
        )
        by_key: dict[str, list[Server]] = {}
        for server in ours:
            if (key := self._marks.key_of_tags(server.tags)) is not None:
                by_key.setdefault(key, []).append(server)
        there = {key: one for key, several in by_key.items() if (one := the_one(several)) is not None}
        left = {
            self._marks.key_of_description(port.description)
            for port in ports
            if not port.device_owner.startswith("network:")
        }
        left = (left | addresses) - there.keys() - {None}
        return [
            *(servers.owned(key, server) for key, server in there.items()),
            *(_leftover(key) for key in left if key is not None),
        ]


class Tags(BaseModel):
    """Of a server."""

    tags: list[str]


def _leftover(key: str) -> Owned:
    return Owned(key, COMPUTE, Status.FAILED, Instance(name=""), LEFTOVER)


def _user_data(request: ComputeRequest, image: Chosen, host_key: HostKey) -> bytes:
    guest = Guest(
        hostname=request.spec.name,
        keys=list(request.spec.ssh_keys),
        host_key=host_key,
        tunnel=request.tunnel,
        trusted_ca=request.trusted_ca,
        user_data=request.spec.user_data,
    )
    return render(guest, image.user_data, OPENSTACK_LIMIT)
