"""A grant's own key: what it signs is the right to use this one machine, and nothing anywhere else.

The key's fedid is the allocation's id. Its machine trusts it as its only certificate authority (sshd_config(5),
`TrustedUserCAKeys`), so the lender lets people in by signing, without touching the machine, and ends that by destroying the
key; `<alloc>.holder <- U` says who handles what was lent. Both last as long as the lease and are renewed with it.
(OpenSSH's PROTOCOL.certkeys; a machine with Dropbear knows no certificates and keeps to its authorized keys.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_public_key,
)

from fedkit.identity.keys import PrivateKey
from fedkit.policy.compact import issue
from fedkit.policy.model import Entity, Role, Statement

HOLDER = "holder"
SKEW = timedelta(minutes=2)  # by how much a machine's clock may be behind
EXTENSIONS = (b"permit-agent-forwarding", b"permit-port-forwarding", b"permit-pty", b"permit-user-rc")


@dataclass(frozen=True)
class Handed:
    """What the borrower is given to handle what was lent: the allocation's fedid, certificates over the user's keys, credentials."""

    allocation: str
    certificates: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()


def openssh(key: PrivateKey) -> str:
    """The public half, in one line as OpenSSH writes it."""
    return key.public.key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def certify(
    authority: PrivateKey, keys: Iterable[str], account: str, label: str, now: datetime, until: datetime
) -> list[str]:
    """Sign a user certificate over each key that OpenSSH can certify, for `account` (root has the same keys)."""
    return [line for key in keys if (line := _certificate(authority, key, account, label, now, until))]


def holder(allocation: PrivateKey, principal: str, until: datetime) -> str:
    """`<alloc>.holder <- U`, as text."""
    statement = Statement(Role(allocation.fedid, HOLDER), (Entity(principal),))
    return issue(allocation, statement, until).raw.decode()


def _certificate(
    authority: PrivateKey, line: str, account: str, label: str, now: datetime, until: datetime
) -> str | None:
    if line.startswith(
        "sk-"
    ):  # a key in hardware; its certificates are of another type, and authorized_keys has it anyway
        return None
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return None
    builder = (
        SSHCertificateBuilder()
        .public_key(key)
        .type(SSHCertificateType.USER)
        .key_id(label.encode())
        .valid_principals(sorted({account.encode(), b"root"}))
        .valid_after(int((now - SKEW).timestamp()))
        .valid_before(int(until.timestamp()))
    )
    for extension in EXTENSIONS:
        builder = builder.add_extension(extension, b"")
    return builder.sign(authority.key).public_bytes().decode()
