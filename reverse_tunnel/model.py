"""The words of this room: a lease, its key, its ports. No I/O."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import NamedTuple

import asyncssh

from reverse_tunnel.errors import BadName, UnusableMachineKey

LOGIN = "tunnel"  # the one user name; the key says who it is
ACCEPTED_KEYS = frozenset(
    {"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"}
)
RSA_MINIMUM_OCTETS = 256 + 20  # of a whole public key with a 2048-bit modulus, give or take its exponent
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")
_UNNAMED_HOSTS = frozenset({"", "*", "localhost"})  # what ssh sends for `-R PORT:…`, `-R *:PORT:…`


class LeaseKey(NamedTuple):
    """What names a lease: ids are chosen by controllers, so one of them cannot touch another's."""

    controller: str
    lease_id: str


@dataclass(frozen=True)
class Lease:
    """The right of one machine to hold ports."""

    key: LeaseKey
    ports: int
    expires: datetime
    names: dict[str, int]
    """Reserved port of each name."""


@dataclass(frozen=True)
class Wanted:
    """What an `ssh -R` asks for: a port by name, by number, or any (`name` empty, `port` 0)."""

    name: str
    port: int


def read_wanted(listen_host: str, listen_port: int) -> Wanted:
    """Read `[HOST:]PORT` of `ssh -R` as a wish.

    HOST is the name; the port beside a name is only what the client likes to call it. An address, `localhost`, `*`
    or nothing is no name: on which address a public port is opened is the server's affair.
    """
    if listen_host in _UNNAMED_HOSTS or _is_address(listen_host):
        return Wanted("", listen_port)
    if _NAME.match(listen_host) is None:
        raise BadName(f"{listen_host[:64]!r} is no name for a port; use lower-case letters, digits and hyphens.")
    return Wanted(listen_host, 0)


def key_id(openssh_line: str) -> str:
    """Return the SHA-256 (hex) of a public key given as an OpenSSH line; raise `UnusableMachineKey`."""
    try:
        key = asyncssh.import_public_key(openssh_line)
    except (asyncssh.KeyImportError, ValueError, UnicodeError) as error:
        raise UnusableMachineKey("This is not an OpenSSH public key.") from error
    return key_id_of(key)


def key_id_of(key: asyncssh.SSHKey) -> str:
    """Return the SHA-256 (hex) of a key's SSH wire form (RFC 4253 §6.6)."""
    algorithm = key.get_algorithm()
    if algorithm not in ACCEPTED_KEYS:
        raise UnusableMachineKey(f"Keys of type {algorithm} are not accepted; use ssh-ed25519.")
    if algorithm == "ssh-rsa" and len(key.public_data) < RSA_MINIMUM_OCTETS:
        raise UnusableMachineKey("An RSA key must have 2048 bits at least; better use ssh-ed25519.")
    return hashlib.sha256(key.public_data).hexdigest()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
