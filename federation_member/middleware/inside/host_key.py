"""The key of a machine's ssh server, made by the lender before the machine is: so everybody knows it from the first connection."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)


@dataclass(frozen=True)
class HostKey:
    """The key that the machine's ssh server shows."""

    private: bytes = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> HostKey:
        """Make a new Ed25519 key."""
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return cls(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), public.decode())


def for_dropbear(private: bytes) -> bytes:
    """Return an Ed25519 key in OpenSSH's format as Dropbear keeps it (its signkey.c); small images lack `dropbearconvert`.

    Raises `ValueError` for another type of key.
    """
    key = load_ssh_private_key(private, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("only Ed25519 keys are made for machines")  # noqa: TRY004  the value is what is wrong
    pair = key.private_bytes_raw() + key.public_key().public_bytes_raw()
    return b"".join(struct.pack(">I", len(text)) + text for text in (b"ssh-ed25519", pair))
