"""A reverse tunnel server without ssh: its wire and its ports, on the network in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer, Request
from fedkit.mesh.node import MeshNode
from fedkit.migrations import upgrade
from fedkit.protocol import Empty
from fedkit.protocol.lending import Tunnel
from fedkit.protocol.tunnel import Grant, Granted, Reserve, Revoke, TunnelServer
from fedkit.store import Database, Tx
from tests.support.federation import Federation
from tests.support.virtual_time import InlineDatabase

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGU"


class NoPortLeft(FedError):
    """As the real one says it."""

    code = "tunnel.no_port_left"
    http = 409


class PortLimit(FedError):
    """As the real one says it."""

    code = "tunnel.port_limit"
    http = 409


@dataclass
class Right:
    """One machine's right to hold ports."""

    public_key: str
    limit: int
    expires: datetime
    controller: Peer
    ports: dict[str, int] = field(default_factory=dict)
    up: set[str] = field(default_factory=set)
    revision: int = 0


class FakeTunnelServer:
    """Grants ports from a range of `ports` numbers."""

    def __init__(self, federation: Federation, ports: int = 100) -> None:
        self._federation = federation
        self._key = PrivateKey.generate()
        self._address = "tunnel.dmz.test"
        self._free = list(range(20000 + ports - 1, 19999, -1))
        self.rights: dict[str, Right] = {}

    @property
    def peer(self) -> Peer:
        """It, as one to talk to."""
        return Peer(self._key.fedid, self._address)

    async def start(self) -> None:
        """Begin to answer."""
        url = f"sqlite:///{self._federation.folder / 'tunnel.db'}"
        self._db = InlineDatabase(url) if self._federation.virtual else Database(url)
        await self._db.__aenter__()
        upgrade(self._db.engine, "federation_member.migrations")
        link = self._federation.network.link(self._address)
        self.mesh = MeshNode(self._key, self._address, self._db, link, self._federation.clock)
        self.mesh.on_query("tunnel.describe", Empty, self._describe)
        self.mesh.on_command("tunnel.grant", Grant, self._grant)
        self.mesh.on_command("tunnel.revoke", Revoke, self._revoke)
        self.mesh.on_command("tunnel.reserve", Reserve, self._reserve)
        self.mesh.on_command("tunnel.free", Reserve, self._release)
        self._life = asyncio.create_task(self._live())

    async def stop(self) -> None:
        """Stop answering."""
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        await self._db.close()

    async def _live(self) -> None:
        async with self.mesh:
            await asyncio.Event().wait()

    def give(self, port: int) -> None:
        """Let one more port be had."""
        self._free.append(port)

    async def come_up(self, lease_id: str, name: str) -> None:
        """A machine dials in and opens a tunnel."""
        self.rights[lease_id].up.add(name)
        await self._tell(lease_id)

    async def go_down(self, lease_id: str, name: str) -> None:
        """A machine loses its tunnel."""
        self.rights[lease_id].up.discard(name)
        await self._tell(lease_id)

    async def _tell(self, lease_id: str) -> None:
        right = self.rights[lease_id]
        granted = self._granted(lease_id)
        await self._db.run(lambda tx: self.mesh.enqueue(tx, right.controller, "tunnel.changed", granted))

    async def _describe(self, _request: Request[Empty]) -> TunnelServer:
        return TunnelServer(host="tunnel.dmz.test", port=2222, host_key=HOST_KEY, address="192.0.2.7")

    def _grant(self, _tx: Tx, request: Request[Grant]) -> Granted:
        body = request.body
        if body.lease_id not in self.rights:
            if not self._free:
                raise NoPortLeft("Every port of this server is in use.")
            self.rights[body.lease_id] = Right(body.public_key, body.ports, body.expires, request.sender)
        right = self.rights[body.lease_id]
        new = [name for name in body.reserve if name not in right.ports]
        if len(right.ports) + len(new) > body.ports:
            raise PortLimit(f"The lease allows {body.ports} ports.")
        right.ports |= {name: self._free.pop() for name in new}
        right.limit, right.expires = body.ports, body.expires
        return self._granted(body.lease_id)

    def _revoke(self, _tx: Tx, request: Request[Revoke]) -> Empty:
        right = self.rights.pop(request.body.lease_id, None)
        self._free += right.ports.values() if right else []
        return Empty()

    def _reserve(self, _tx: Tx, request: Request[Reserve]) -> Granted:
        right = self.rights[request.body.lease_id]
        if not self._free:
            raise NoPortLeft("Every port of this server is in use.")
        right.ports.setdefault(request.body.name, self._free.pop())
        return self._granted(request.body.lease_id)

    def _release(self, _tx: Tx, request: Request[Reserve]) -> Granted:
        port = self.rights[request.body.lease_id].ports.pop(request.body.name, None)
        self._free += [port] if port else []
        return self._granted(request.body.lease_id)

    def _granted(self, lease_id: str) -> Granted:
        right = self.rights[lease_id]
        right.revision += 1
        tunnels = [
            Tunnel(name=name, host="tunnel.dmz.test", port=port, up=name in right.up)
            for name, port in right.ports.items()
        ]
        return Granted(lease_id=lease_id, revision=right.revision, expires=right.expires, tunnels=tunnels)
