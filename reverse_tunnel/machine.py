"""One machine's connection, as policy sees it: who it is, and what it may do, which is `ssh -R` and nothing else.

    login      user `tunnel`, by key; the key finds the lease. An unknown key, an ended lease and a wrong user look alike.
    ssh -R     NAME:PORT:host:port   the port reserved for that name (reserved now if the lease has one left)
               PORT:host:port        that port, if it is the lease's
               0:host:port           any of the lease's unnamed ports that is not in use: `port-1`, `port-2` …
    anything else is refused, with a sentence that ssh shows.

ssh shows three things of a server: the banner at login (which ports the lease has), the reason of a refused channel, and the
reason of a disconnect. A refused `-R` carries no reason (RFC 4254 §4), so a connection that is left with nothing open is
ended with one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

import asyncssh
import structlog

from reverse_tunnel.errors import OnlyTunnels, TunnelRefusal, UnknownLease, UnusableMachineKey
from reverse_tunnel.listener import PublicPort
from reverse_tunnel.model import LOGIN, Lease, key_id_of, read_wanted

if TYPE_CHECKING:
    from reverse_tunnel.server import SshServer

log = structlog.get_logger()

MOST_FAILURES = 6  # wrong keys that one connection may offer
NO_MORE_METHODS = 14  # SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE
NOT_HEARD_OF = float("inf")


class Machine(asyncssh.SSHServer):
    """asyncssh makes one for each connection, before it knows who is there."""

    def __init__(self, server: SshServer) -> None:
        self._server = server
        self._failures = 0
        self._address = ""
        self._waiting = False
        self.conn: Any = None
        self.lease: Lease | None = None
        self.key_id = ""
        self.open: dict[int, PublicPort] = {}

    # Login.

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Somebody connected; turn them away before the key exchange if there are too many."""
        self.conn = conn
        self._address = conn.get_extra_info("peername")[0]
        self._waiting = self._server.gate.arrive(self._address)
        if not self._waiting:
            self._server.traffic.refusals["tunnel.too_many_logins"] += 1
            conn.abort()

    def public_key_auth_supported(self) -> bool:
        """Keys are the only way in."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Find the lease of a key; asyncssh then checks that its owner is there."""
        try:
            self.key_id = key_id_of(key)
        except UnusableMachineKey:
            lease = None
        else:
            lease = await self._server.find_lease(self.key_id)
        self.lease = lease if username == LOGIN else None
        if self.lease is None:
            self._server.gate.fail(self._address)
            self._server.traffic.refusals["tunnel.unknown_key"] += 1
            self._failures += 1
            if self._failures == MOST_FAILURES:
                self.conn.disconnect(
                    NO_MORE_METHODS, "Too many keys; name the right one with -i and -o IdentitiesOnly=yes"
                )
        return self.lease is not None

    def greeting(self) -> str:
        """What the machine is told at login; shown by ssh on standard error."""
        assert self.lease is not None
        host = self._server.host
        names = [f"  {name}: {host}:{port}" for name, port in self.lease.names.items()]
        left = max(0, self.lease.ports - len(names))
        lines = [f"Reverse tunnel; {left} more ports free: ssh -R NAME:0:localhost:PORT", *names]
        return "\r\n".join(lines) + "\r\n"

    def auth_completed(self) -> None:
        """The machine has proved to own the key."""
        self._waiting = False
        self._server.gate.log_in(self._address)
        self._server.traffic.logins += 1
        assert self.lease is not None
        log.info("machine_connected", lease=self.lease.key.lease_id, address=self._address)
        self._server.add(self, self.lease.key)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone; asyncssh has closed its ports."""
        if self._waiting:
            self._server.gate.give_up(self._address)
        elif self.lease is not None and self._server.remove(self, self.lease.key):
            self._server.gate.leave(self._address)
            log.info("machine_gone", lease=self.lease.key.lease_id, reason=str(exc or "closed"))

    # The one thing that it may do.

    async def server_requested(self, listen_host: str, listen_port: int) -> asyncssh.SSHListener | bool:
        """Open a public port for `ssh -R listen_host:listen_port:…`."""
        try:
            if self.lease is None or self.conn.is_closed():
                raise UnknownLease("The lease has ended.")
            wanted = read_wanted(listen_host, listen_port)
            port = await self._server.assign(self, self.lease.key, wanted)
            # Clients find their forward again by the host and port that they asked for; for port 0, by the one they got.
            return self._server.open_port(self, port, (listen_host, listen_port or port))
        except TunnelRefusal as refusal:
            return self._refuse(refusal)

    def _refuse(self, refusal: TunnelRefusal) -> bool:
        self._note(refusal)
        text = f"{refusal.code}: {refusal.message}"
        if self.open or bool(getattr(self.conn, "pending_requests", 0)):
            self.conn.send_debug(text, always_display=True)
        else:
            self.end(text)
        return False

    def end(self, reason: str) -> None:
        """Disconnect with a sentence that ssh shows."""
        self.conn.disconnect(asyncssh.DISC_BY_APPLICATION, reason)

    def silent_seconds(self) -> float:
        """How long nothing has been heard of the machine; stock asyncssh does not know."""
        return cast(float, getattr(self.conn, "silent_seconds", 0.0))

    # And what it may not.

    def session_requested(self) -> NoReturn:
        """No shell, no command, no sftp, and so no agent, X11 or terminal either."""
        self._only_tunnels("no shell and no command here; use ssh -N")

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> NoReturn:
        """No `ssh -L`, `-D`, `-W`: nothing goes inwards."""
        self._only_tunnels("no forward inwards")

    def unix_connection_requested(self, dest_path: str) -> NoReturn:
        """No `ssh -L` to a socket of ours."""
        self._only_tunnels("no forward inwards")

    def tun_requested(self, unit: int | None) -> NoReturn:
        """No `ssh -w`."""
        self._only_tunnels("no network tunnel")

    def tap_requested(self, unit: int | None) -> NoReturn:
        """No `ssh -w` with Ethernet."""
        self._only_tunnels("no network tunnel")

    def unix_server_requested(self, listen_path: str) -> bool:
        """No `ssh -R PATH:…`."""
        return self._refuse(OnlyTunnels("no sockets by path; use ssh -R NAME:0:host:port"))

    def _only_tunnels(self, what: str) -> NoReturn:
        refusal = OnlyTunnels(f"{what}; this server opens ssh -R tunnels only")
        self._note(refusal)
        code = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED
        raise asyncssh.ChannelOpenError(code, f"{refusal.code}: {refusal.message}")

    def _note(self, refusal: TunnelRefusal) -> None:
        self._server.traffic.refusals[refusal.code] += 1
        lease = self.lease.key.lease_id if self.lease is not None else ""
        log.info("machine_refused", lease=lease, code=refusal.code, reason=refusal.message)
