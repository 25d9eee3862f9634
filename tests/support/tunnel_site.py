"""A reverse tunnel server with its controller on a mesh in memory, and machines with keys, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncssh

from fedkit.clock import Clock, now
from fedkit.errors import RemoteError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Outcome, Peer, Request
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables
from fedkit.protocol import Empty
from fedkit.protocol.tunnel import Grant, Granted
from fedkit.store import Database, Tx
from reverse_tunnel.config import TunnelConfig
from reverse_tunnel.service import TunnelService, open_tunnel_server
from tests.support.memory_network import MemoryNetwork

BIND = "127.0.0.1"
TUNNEL_ADDRESS = "tunnel.site-b.test"
CONTROLLER_ADDRESS = "fm.site-a.test"


def free_range(size: int, bind: str = BIND) -> str:
    """A range of ports below the ephemeral ones in which nobody listens now, as FIRST-LAST."""
    import random

    for _ in range(100):
        first = random.randrange(10_000, 32_000 - size)
        try:
            for port in range(first, first + size):
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((bind, port))
        except OSError:
            continue
        return f"{first}-{first + size - 1}"
    raise AssertionError("no free ports")


@dataclass
class MachineKey:
    """A machine: its lease and its key as a file."""

    lease_id: str
    path: Path
    public: str

    @classmethod
    def make(cls, folder: Path, kind: str = "ssh-ed25519") -> MachineKey:
        lease_id = str(uuid4())
        key = asyncssh.generate_private_key(kind)
        path = folder / f"machine-{lease_id[:8]}"
        key.write_private_key(path)
        path.chmod(0o600)
        return cls(lease_id, path, key.export_public_key().decode().strip())


class Controller:
    """Asks as a member does; keeps the `tunnel.changed` that it was told."""

    def __init__(self, node: MeshNode, db: Database) -> None:
        self.node = node
        self.db = db
        self.told: list[Granted] = []
        self.heard = asyncio.Condition()
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self.server: Peer | None = None
        node.on_command("tunnel.changed", Granted, self._changed)
        for operation in ("grant", "revoke", "reserve", "free"):
            node.on_answer(f"tunnel.{operation}", self._answered)

    def _changed(self, tx: Tx, request: Request[Granted]) -> Empty:
        def tell() -> None:
            self.told.append(request.body)
            asyncio.get_running_loop().create_task(self._wake())

        tx.after_commit(tell)
        return Empty()

    async def _wake(self) -> None:
        async with self.heard:
            self.heard.notify_all()

    def _answered(self, tx: Tx, outcome: Outcome) -> None:
        future = self._waiting.pop(outcome.request_id)

        def tell() -> None:
            if outcome.error is not None:
                future.set_exception(outcome.error)
            else:
                future.set_result(outcome.answer)

        tx.after_commit(tell)

    async def command(self, operation: str, body: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; raise `RemoteError`."""
        assert self.server is not None
        server = self.server
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        def enqueue(tx: Tx) -> None:
            request_id = self.node.enqueue(tx, server, operation, body)
            self._waiting[request_id] = future

        await self.db.run(enqueue)
        async with asyncio.timeout(20):
            return await future

    async def grant(self, machine: MachineKey, ports: int = 4, seconds: float = 3600, **more: Any) -> dict[str, Any]:
        """Grant a lease to a machine."""
        expires = more.pop("expires", None) or datetime.now(UTC) + timedelta(seconds=seconds)
        body = Grant(lease_id=machine.lease_id, public_key=machine.public, ports=ports, expires=expires, **more)
        return await self.command("tunnel.grant", body)

    async def until(self, accept: Callable[[Granted], bool]) -> Granted:
        """Wait until a `tunnel.changed` is accepted."""
        async with asyncio.timeout(20), self.heard:
            while True:
                for told in self.told:
                    if accept(told):
                        return told
                await self.heard.wait()


@dataclass
class Site:
    """The server, its controller, and what tests need to know."""

    service: TunnelService
    controller: Controller
    config: TunnelConfig
    folder: Path
    network: MemoryNetwork
    machines: list[MachineKey] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.service.server.port

    @property
    def http_port(self) -> int:
        return int(self.config.http.listen.rpartition(":")[2])

    async def machine(self, ports: int = 4, **more: Any) -> MachineKey:
        """A machine with a lease."""
        machine = MachineKey.make(self.folder, more.pop("kind", "ssh-ed25519"))
        await self.controller.grant(machine, ports, **more)
        return machine


def write_config(folder: Path, controllers: list[str], **more: Any) -> TunnelConfig:
    """A configuration for one server whose files are in `folder`."""
    key = folder / "tunnel.pem"
    if not key.exists():
        PrivateKey.generate().save(key)
    tunnel = {
        "listen": f"{BIND}:0",
        "host": "tunnel.site-b.test",
        "address": BIND,
        "bind": BIND,
        "ports": free_range(20),
        "host_key": folder / "ssh_host_key",
        "controllers": controllers,
    } | more.pop("tunnel", {})
    return TunnelConfig.model_validate(
        {
            "identity": {"key": key},
            "xmpp": {"address": TUNNEL_ADDRESS, "host": BIND, "secret_file": folder / "secret"},
            "store": {"url": f"sqlite:///{folder}/tunnel.db"},
            "http": {"listen": f"{BIND}:{free_range(1).partition('-')[0]}"},
            "tunnel": tunnel,
            "limits": more.pop("limits", {}),
        }
    )


@asynccontextmanager
async def open_site(folder: Path, clock: Clock = now, **more: Any) -> AsyncIterator[Site]:
    """Open a server and its controller; call again with the same folder to restart them."""
    network = MemoryNetwork()
    key_file = folder / "controller.pem"
    if not key_file.exists():
        PrivateKey.generate().save(key_file)
    key = PrivateKey.load(key_file)
    config = write_config(folder, [key.fedid], **more)
    async with Database(f"sqlite:///{folder}/controller.db") as db:
        with db.engine.begin() as conn:
            create_mesh_tables(conn)
        node = MeshNode(key, CONTROLLER_ADDRESS, db, network.link(CONTROLLER_ADDRESS))
        controller = Controller(node, db)
        async with node, open_tunnel_server(config, network.link(TUNNEL_ADDRESS), clock) as service:
            controller.server = Peer(PrivateKey.load(config.identity.key).fedid, TUNNEL_ADDRESS)
            yield Site(service, controller, config, folder, network)


__all__ = ["BIND", "Controller", "MachineKey", "RemoteError", "Site", "free_range", "open_site", "write_config"]
