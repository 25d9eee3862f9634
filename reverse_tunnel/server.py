"""The ssh server that machines dial, and which of them holds which public port now.

What belongs to whom stands in the port book (`store.py`); here is only what is open. A port belongs to its lease, and whoever of
that machine asks last holds it: after a cut that nobody noticed, a machine that reconnects has its port back at once, and the
dead connection that still held it is dropped.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import structlog
from asyncssh.kex import get_kex_algs

from fedkit.clock import Clock
from fedkit.config import UnusableConfig
from fedkit.mesh.api import Mesh
from fedkit.service import parse_listen
from fedkit.ssh.connection import GCM_CIPHERS, TUNED_FOR
from fedkit.store import Database, Tx
from reverse_tunnel import stock
from reverse_tunnel.config import LimitsSection, TunnelSection
from reverse_tunnel.connection import DROPBEAR_CIPHER, TunedConnection
from reverse_tunnel.errors import PortBusy, TooManyConnections, UnknownLease
from reverse_tunnel.gate import Gate
from reverse_tunnel.listener import PublicPort, Splice, listen_on
from reverse_tunnel.machine import Machine
from reverse_tunnel.model import Lease, LeaseKey, Wanted
from reverse_tunnel.store import PortBook
from reverse_tunnel.traffic import Traffic

log = structlog.get_logger()

SPARE_CONNECTIONS = 4  # of one machine, beyond one for each port
REKEY_BYTES = 64 * 2**30  # GCM stays safe for longer (RFC 5647 §8); re-keying stops the traffic for milliseconds
BACKLOG = 1024
HOST_KEY = "ssh-ed25519"
# Dropbear guesses the first key exchange, and asyncssh judges the guess by the chosen algorithms instead of the first of both
# lists (RFC 4253 §7): with these in front, and an Ed25519 host key, both come to the same result.
KEY_EXCHANGES = ["curve25519-sha256", "mlkem768x25519-sha256", "ecdh-sha2-nistp256"]
DEAD_AFTER_KEEPALIVES = 1.5  # intervals of silence after which an unnamed port may go to the machine's newer connection


class SshServer:
    """Listens while its context is open; `changed` is called with each lease whose ports went up or down."""

    def __init__(
        self,
        config: TunnelSection,
        limits: LimitsSection,
        db: Database,
        mesh: Mesh,
        book: PortBook,
        clock: Clock,
        changed: Callable[[LeaseKey], None],
    ) -> None:
        self._config = config
        self._limits = limits
        self._db = db
        self._mesh = mesh
        self._book = book
        self._clock = clock
        self._changed = changed
        self.host = config.host
        self.traffic = Traffic()
        self.gate = Gate(limits, time.monotonic)
        self._machines: dict[LeaseKey, dict[Machine, None]] = {}  # the oldest connection first
        self._ports: dict[int, tuple[Machine, PublicPort]] = {}
        self._server: Any = None
        self._tasks: asyncio.TaskGroup | None = None
        self._tuned = asyncssh.__version__ == TUNED_FOR

    # Life.

    async def __aenter__(self) -> SshServer:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        host, port = parse_listen(self._config.listen)
        options = await asyncssh.SSHServerConnectionOptions.construct(
            server_factory=lambda: Machine(self),
            server_host_keys=[str(self._config.host_key)],
            server_version="fedmesh",
            kex_algs=[name for name in KEY_EXCHANGES if name.encode() in get_kex_algs()],
            encryption_algs=GCM_CIPHERS if self._tuned else [*GCM_CIPHERS, DROPBEAR_CIPHER],
            compression_algs=None,
            password_auth=False,
            kbdint_auth=False,
            host_based_auth=False,
            gss_host=None,
            allow_pty=False,
            allow_scp=False,
            agent_forwarding=False,
            login_timeout=self._limits.login_seconds,
            keepalive_interval=self._limits.keepalive_seconds,
            keepalive_count_max=self._limits.keepalive_count,
            rekey_bytes=REKEY_BYTES,
        )
        if self._tuned:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: TunedConnection(loop, options, self.traffic, self._limits.channels), host, port, backlog=BACKLOG
            )
        else:
            log.warning("stock_asyncssh", version=asyncssh.__version__, tuned_for=TUNED_FOR)
            self._server = await asyncssh.listen(host, port, options=options, backlog=BACKLOG)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        closing = [machine for machines in self._machines.values() for machine in machines]
        for machine in closing:
            machine.end("The tunnel server stops.")
        for machine in closing:
            await machine.conn.wait_closed()
        assert self._tasks is not None
        await self._tasks.__aexit__(None, None, None)

    @property
    def port(self) -> int:
        """The port that machines dial."""
        return int(self._server.sockets[0].getsockname()[1])

    def open_now(self) -> tuple[int, int]:
        """How many machines' connections and public ports there are now."""
        return sum(map(len, self._machines.values())), len(self._ports)

    def ports_up(self, key: LeaseKey) -> set[int]:
        """The ports of a lease that are open now."""
        return {port for machine in self._machines.get(key, ()) for port in machine.open}

    # What machines ask for.

    async def find_lease(self, key_id: str) -> Lease | None:
        """Find the lease of a machine's key, if there is one and its time is not over."""
        lease = await self._db.read(lambda conn: self._book.find_lease(conn, key_id))
        return lease if lease is not None and lease.expires > self._clock() else None

    def add(self, machine: Machine, key: LeaseKey) -> None:
        """A machine has logged in. If it has too many connections, one without a port goes: the oldest, or the new one."""
        assert machine.lease is not None
        machines = self._machines.setdefault(key, {})
        machines[machine] = None
        if len(machines) > machine.lease.ports + SPARE_CONNECTIONS:
            refusal = TooManyConnections("this machine has too many connections without a tunnel")
            self.traffic.refusals[refusal.code] += 1
            next(other for other in machines if not other.open).end(f"{refusal.code}: {refusal.message}")

    def remove(self, machine: Machine, key: LeaseKey) -> bool:
        """A machine's connection is gone; tell whether it had been added."""
        machines = self._machines.get(key, {})
        if machine not in machines:
            return False
        for port in list(machine.open.values()):
            port.close()
        del machines[machine]
        if not machines:
            self._machines.pop(key, None)
        return True

    async def assign(self, machine: Machine, key: LeaseKey, wanted: Wanted) -> int:
        """Return the port for an `ssh -R`, reserving one if need be; raise a `TunnelRefusal`."""
        silence = self._limits.keepalive_seconds * DEAD_AFTER_KEEPALIVES
        taken = {
            port
            for other in self._machines.get(key, ())
            if other is machine or other.silent_seconds() < silence
            for port in other.open
        }

        def assign(tx: Tx) -> int:
            assigned = self._book.assign(tx, key, wanted, taken)
            if assigned.created:
                self._mesh.enqueue(
                    tx, self._book.controller(tx.conn, key), "tunnel.changed", self._book.view(tx.conn, key)
                )
            return assigned.port

        return await self._db.run(assign)

    def open_port(self, machine: Machine, port: int, told: tuple[str, int]) -> PublicPort:
        """Open a public port for a machine, taking it from its older connection; raise a `TunnelRefusal`."""
        assert machine.lease is not None
        key = machine.lease.key
        if machine not in self._machines.get(key, ()):
            raise UnknownLease("The lease has ended.")
        self._take_over(machine, port)
        try:
            sock = listen_on(self._config.bind, port)
        except OSError as error:
            log.error("port_busy", port=port, reason=error.strerror)
            raise PortBusy(
                f"Port {port} cannot be opened: {error.strerror}. Tell the tunnel server's operator."
            ) from error

        def gone(closed: PublicPort) -> None:
            del self._ports[port]
            del machine.open[port]
            self._changed(key)

        listener = PublicPort(sock, self._splice(machine, told), self._limits.connections_per_port, self.traffic, gone)
        self._ports[port] = machine, listener
        machine.open[port] = listener
        self._changed(key)
        return listener

    def _take_over(self, machine: Machine, port: int) -> None:
        if port not in self._ports:
            return
        older, listener = self._ports[port]
        listener.close()
        if older is not machine and not older.open:
            older.end("A newer connection of this machine has taken over its tunnel.")

    def _splice(self, machine: Machine, told: tuple[str, int]) -> Splice:
        def tuned(sock: socket.socket, origin: tuple[str, int], closed: Callable[[], None]) -> bool:
            return bool(machine.conn.open_port_channel(sock, told, origin, closed))

        def untuned(sock: socket.socket, origin: tuple[str, int], closed: Callable[[], None]) -> bool:
            assert self._tasks is not None
            self._tasks.create_task(stock.splice(machine.conn, sock, told, origin, self.traffic, closed))
            return True

        return tuned if self._tuned else untuned

    # What controllers change.

    def drop_lease(self, key: LeaseKey) -> None:
        """Disconnect every connection of a lease that has ended."""
        for machine in list(self._machines.get(key, ())):
            machine.end("The lease has ended.")

    def drop_other_keys(self, key: LeaseKey, key_id: str) -> None:
        """Disconnect the connections that logged in with a key that the lease no longer has."""
        for machine in list(self._machines.get(key, ())):
            if machine.key_id != key_id:
                machine.end("The lease has a new key.")

    def drop_port(self, port: int) -> None:
        """Close a public port that was given back."""
        if port in self._ports:
            machine, listener = self._ports[port]
            listener.close()
            if not machine.open:
                machine.end("The port was given back.")


def load_host_key(path: Path) -> str:
    """Return the public half of the host key as an OpenSSH line; make the key at the first start."""
    if not path.exists():
        text = asyncssh.generate_private_key("ssh-ed25519", "fedmesh tunnel").export_private_key()
        unfinished = path.with_name(path.name + ".new")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    try:
        key = asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise UnusableConfig(f"[tunnel] host_key {path} is not an OpenSSH private key: {error}.") from error
    algorithm, data = key.export_public_key().decode().split()[:2]
    if algorithm != HOST_KEY:
        raise UnusableConfig(f"[tunnel] host_key {path} must be of type {HOST_KEY}: ssh-keygen -t ed25519 -f {path}")
    return f"{algorithm} {data}"
