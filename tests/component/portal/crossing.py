"""Two networks with the same prefix, one machine in each, and portals between them: as two sites see one substrate.

Both stand at one site, in one network namespace; the networks and the machines have nothing in common but the reverse tunnel
server, by which the connecting portal reaches the other one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

from federation_member.middleware.contract import Middleware, Owned, TunnelAccess
from fedkit.portal.script import TUNNEL, PortalConfig, Relay, portal_script
from fedkit.protocol.lending import NetworkSpec
from tests.component.middleware.contract import compute, made, new_key, plain
from tests.component.middleware.machines import run
from tests.component.middleware.place import GATEWAY, ContainersSite
from tests.support.tunnel_site import MachineKey, Site, free_range, open_site

SIDES = ("left", "right")
PROGRAM, OPENSSH = "program", "openssh"  # what a portal's machine has in its image
ETH_P_ALL = 3


@dataclass(frozen=True)
class Side:
    """One end of a crossing: a network, and a machine in it."""

    network: str
    machine: Owned
    bridge: str


@dataclass(frozen=True)
class Crossing:
    """What is to be one network."""

    tag: int
    left: Side
    right: Side

    def address(self, side: str) -> str:
        """Of the machine there."""
        return address(self.tag, side)

    async def meets(self, side: str = "left") -> bool:
        """Whether the machine of this side reaches the one of the other."""
        if side == "left":  # it is a machine as any, and may send no ICMP
            command = f"sleep 0.5 | nc -w 2 {self.address('right')} 22 | head -c 7"
            return "SSH-2.0" in await run(self.left.machine.instance, command)
        command = f"ping -c 1 -w 2 {self.address('left')} >/dev/null 2>&1; echo $?"
        return await run(self.right.machine.instance, command, user="root") == "0"


@dataclass(frozen=True)
class Kinds:
    """What each end is made with; `relayed`: the passive one's machine has no tunnel, and it holds a port by its own key."""

    active: str = PROGRAM
    passive: str = PROGRAM
    relayed: bool = False

    def script(self, end: str, config: PortalConfig) -> str:
        """The user data of an end; without our program where that is so."""
        script = portal_script(config)
        without = "#!/bin/sh\nrm -r /usr/local/lib/fedmesh-portal\n"
        return script if getattr(self, end) == PROGRAM else without + script


@dataclass(frozen=True)
class Portals:
    """Both ends: the connecting one first."""

    active: Owned
    passive: Owned


def address(tag: int, side: str) -> str:
    """Of the machine of a side in a crossing."""
    return f"10.20.{tag}.{10 + SIDES.index(side)}"


async def a_crossing(middleware: Middleware, site: ContainersSite, tag: int) -> Crossing:
    """Two networks with a machine each, not yet joined."""
    return Crossing(tag, *[await _a_side(middleware, site, tag, side) for side in SIDES])


async def _a_side(middleware: Middleware, site: ContainersSite, tag: int, side: str) -> Side:
    before = bridges()
    network = await made(middleware, new_key(), plain(site, NetworkSpec(cidr=f"10.20.{tag}.0/24", verbatim=True)))
    (bridge,) = bridges() - before
    order = compute(
        site,
        (network.key,),
        name=f"{side}{tag}",
        addresses={network.key: address(tag, side)},
        carries_frames=side == "right",
    )
    return Side(network.key, await made(middleware, new_key(), order), bridge)


def bridges() -> set[str]:
    """Of private networks that are there now."""
    return {name for _, name in socket.if_nameindex() if name.startswith("fn")}


@asynccontextmanager
async def a_tunnel_server(folder: Path, listen: str) -> AsyncIterator[Site]:
    """The site's, on its host; again with the same arguments, it is the same after a restart."""
    async with open_site(
        folder, tunnel={"listen": listen, "address": GATEWAY, "bind": GATEWAY, "ports": PORTS}
    ) as site:
        yield site


PORTS = free_range(20)


async def join(
    middleware: Middleware,
    site: ContainersSite,
    server: Site,
    crossings: Sequence[Crossing],
    key: MachineKey,
    kinds: Kinds,
) -> Portals:
    """Make the portals of these crossings: the passive one on the right with `key` for the tunnel server, the active one on the left."""
    keys = {side: asyncssh.generate_private_key("ssh-ed25519") for side in SIDES}
    if kinds.relayed:
        keys["right"] = asyncssh.read_private_key(key.path)
    private = {side: keys[side].export_private_key().decode() for side in SIDES}
    public = {side: keys[side].export_public_key().decode().strip() for side in SIDES}
    tags = tuple(crossing.tag for crossing in crossings)
    access = _access(server, key)
    relay = Relay(access.address, access.port, access.host_key, TUNNEL) if kinds.relayed else None
    order = compute(
        site,
        tuple(crossing.right.network for crossing in crossings),
        name="passive",
        carries_frames=True,
        user_data=kinds.script("passive", PortalConfig(tags, private["right"], public["left"], relay=relay)),
    )
    order = dataclasses.replace(order, tunnel=None if kinds.relayed else access)
    passive = await made(middleware, new_key(), order)
    told = await server.controller.until(lambda told: any(one.name == TUNNEL and one.up for one in told.tunnels))
    (port,) = [tunnel.port for tunnel in told.tunnels if tunnel.name == TUNNEL]
    config = PortalConfig(tags, private["left"], public["right"], GATEWAY, port, passive.instance.host_keys[0])
    networks = tuple(crossing.left.network for crossing in crossings)
    order = compute(site, networks, name="active", carries_frames=True, user_data=kinds.script("active", config))
    return Portals(await made(middleware, new_key(), order), passive)


def _access(server: Site, key: MachineKey) -> TunnelAccess:
    host_key = asyncssh.read_private_key(server.config.tunnel.host_key)
    return TunnelAccess(
        host=server.config.tunnel.host,
        address=GATEWAY,
        port=server.port,
        host_key=host_key.export_public_key().decode().strip(),
        private_key=key.path.read_text(),
    )


def a_listener(interface: str) -> socket.socket:
    """Hears every frame that comes to this interface."""
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    listener.bind((interface, 0))
    listener.setblocking(False)
    return listener


async def hears(listener: socket.socket, frame: bytes, seconds: float) -> bool:
    """Whether this frame, octet by octet, comes within so many seconds."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            while await loop.sock_recv(listener, 65536) != frame:
                pass
    except TimeoutError:
        return False
    return True
