"""The pool of certificates that stand for accounts in certificate systems, by access level.

    POOL/LEVEL/NAME.pem     an X.509 certificate with its private key, PEM, readable by the owner alone

Such systems know a flat space of certificates, each with rights of its own; a rule's account names the level. Of a level's
certificates the one is taken that the fewest grants use. The folder is read with the policy; what cannot be used is refused
then, not when somebody waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509

from fedkit.config import UnusableConfig
from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey


@dataclass(frozen=True)
class Certificate:
    """One of the pool; `name` is what grants call the account."""

    name: str
    path: Path
    expires: datetime


@dataclass(frozen=True)
class Pool:
    """What is there, by access level."""

    levels: Mapping[str, tuple[Certificate, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Pool:
        """Read the folder; raise `UnusableConfig` that names the file and what is wrong with it."""
        if not folder.is_dir():
            raise UnusableConfig(f"[policy] certificates: there is no folder {folder}.")
        levels = sorted(path for path in folder.iterdir() if path.is_dir())
        return cls({level.name: tuple(map(_read, sorted(level.glob("*.pem")))) for level in levels})

    def choose(self, level: str, uses: Mapping[str, int], until: datetime) -> Certificate | None:
        """The least used certificate of a level that is valid until then; `uses` counts grants by path."""
        usable = [one for one in self.levels.get(level, ()) if one.expires >= until]
        return min(usable, key=lambda one: (uses.get(str(one.path), 0), one.name), default=None)


def _read(path: Path) -> Certificate:
    try:
        key = PrivateKey.load(path)
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, UnusableKey) as error:
        raise UnusableConfig(f"{path} is not a certificate with its unencrypted key in PEM: {error}") from error
    if PublicKey.of(certificate.public_key()) != key.public:
        raise UnusableConfig(f"{path}: the key is not the certificate's.")
    return Certificate(path.stem, path, certificate.not_valid_after_utc)
