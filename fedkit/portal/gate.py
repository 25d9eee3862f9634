"""Who may enter the end that waits, and what they may ask for: frames, tunnels with a crossing's tag, services that are permitted.

Whoever has not logged in is one of few, and has `LOGIN_SECONDS`; the key decides, and unless the partner is behind a NAT or a
relay stands between, so does the address. Where there are too many, whoever waits longest of the address with most of them makes
room: so strangers keep the partner out only if they come faster than it logs in, from as many addresses as may wait.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import TYPE_CHECKING, Any

import asyncssh

from fedkit.portal.channel import Frames
from fedkit.portal.classic_session import ClassicSession
from fedkit.portal.planes.contract import PlaneName
from fedkit.portal.session import Session

if TYPE_CHECKING:
    from fedkit.portal.service import Portal

AT_ONCE = 8  # connections that have not logged in
SPARE = 8  # connections of the partner beyond one for each crossing, which is what ssh -w needs


class Gate(asyncssh.SSHServer):
    """asyncssh makes one for each connection."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._conn: Any = None
        self._address = ""
        self._partner = False
        self._own: Session | None = None
        self._classic: ClassicSession | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Somebody connected."""
        self._conn = conn
        self._address = conn.get_extra_info("peername")[0]
        if not self._portal.may_come_from(self._address):
            conn.abort()
            return
        strangers = self._portal.strangers
        strangers.append(self)
        if len(strangers) > AT_ONCE:
            crowd, _ = Counter(one._address for one in strangers).most_common(1)[0]
            next(one for one in strangers if one._address == crowd)._turn_away()

    def _turn_away(self) -> None:
        self._known()
        self._conn.abort()

    def _known(self) -> None:
        if self in self._portal.strangers:
            self._portal.strangers.remove(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """They are gone."""
        self._known()
        self._portal.partners -= self._partner

    def public_key_auth_supported(self) -> bool:
        """Keys are the only way in."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Only the partner's; asyncssh then checks that its owner is there."""
        return bool(key == self._portal.peer_key)

    def auth_completed(self) -> None:
        """They have proved to be the partner."""
        self._known()
        self._partner = True
        self._portal.partners += 1
        if self._portal.partners > len(self._portal.switch.tags) + SPARE:
            self._conn.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, "There are too many connections")

    # What the partner may ask for.

    def frames_requested(self) -> Frames:
        """A channel of records."""
        if self._own is not None or self._portal.config.planes == (PlaneName.CLASSIC,):
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "No frames here")
        self._own = self._portal.new_session(self._conn)
        return self._own.stream

    def tunnel_requested(self, unit: int) -> Frames:
        """`ssh -w`: the unit is the tag."""
        if PlaneName.CLASSIC not in self._portal.config.planes:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "No tunnels here")
        if self._classic is None:
            self._classic = self._portal.new_classic(self._conn)
        return self._classic.attach(unit)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> bool:
        """A service behind this end."""
        return f"{dest_host}:{dest_port}" in self._portal.config.permit

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        """A service of the other end that this end wishes to reach."""
        return f"{listen_host}:{listen_port}" in [forward.listen for forward in self._portal.config.forward]


def same_address(one: str, other: str) -> bool:
    """Whether two texts are one address."""
    try:
        return _plain(one) == _plain(other)
    except ValueError:
        return False


def _plain(text: str) -> object:
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
