"""What only the holder of one key can read: HPKE (RFC 9180), base mode, with X25519, HKDF-SHA256 and AES-128-GCM.

    sealed = base64(enc ‖ ciphertext)        `info` says what for, and opens nothing that was sealed for anything else

A sealing key is another one than the Ed25519 key that signs, because a key serves one purpose; where both are kept in one file, it
stands below as a PEM block of its own.
"""

from __future__ import annotations

import base64
import binascii
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from fedkit.errors import InputError
from fedkit.identity.keys import UnusableKey

PUBLIC_PATTERN = r"^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"  # 32 octets in base64
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
_PEM = re.compile(rb"-----BEGIN PRIVATE KEY-----\n.+?-----END PRIVATE KEY-----\n?", re.DOTALL)


class NotForThisKey(InputError):
    """What is to be opened was sealed for another key or purpose, or is damaged."""

    code = "identity.not_for_this_key"


def new_key() -> X25519PrivateKey:
    """Make a key that things can be sealed to."""
    return X25519PrivateKey.generate()


def public_text(key: X25519PrivateKey) -> str:
    """The public half, as `seal` takes it: its 32 octets (RFC 7748) in base64."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def seal(public: str, purpose: str, content: bytes) -> str:
    """Make `content` readable for the holder of the key alone; raises `UnusableKey`."""
    try:
        key = X25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        sealed = _SUITE.encrypt(content, key, info=purpose.encode())
    except ValueError as error:  # no base64, of another length, or a point of small order
        raise UnusableKey("What things are to be sealed to is no X25519 public key.") from error
    return base64.b64encode(sealed).decode()


def open_sealed(key: X25519PrivateKey, purpose: str, sealed: str) -> bytes:
    """Read what was sealed; raises `NotForThisKey`."""
    try:
        return _SUITE.decrypt(base64.b64decode(sealed, validate=True), key, info=purpose.encode())
    except (InvalidTag, binascii.Error, ValueError) as error:
        raise NotForThisKey("This was sealed for another key or purpose, or is damaged.") from error


def pem(key: X25519PrivateKey) -> bytes:
    """The key as PEM (PKCS #8), unencrypted: only for places that nobody else can read."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def from_pem(text: bytes, where: str) -> X25519PrivateKey:
    """The first sealing key among the PEM blocks; raises `UnusableKey`."""
    for block in _PEM.findall(text):
        try:
            key = serialization.load_pem_private_key(block, None)
        except ValueError:
            continue
        if isinstance(key, X25519PrivateKey):
            return key
    raise UnusableKey(f"{where} holds no X25519 private key.")
