"""Keys, and the fedid that names them.

A fedid is the 160-bit SHA-1 subject key identifier of a public key: the hash of the contents of the
subjectPublicKey BIT STRING, without tag, length and unused-bits octet (RFC 3280 §4.2.1.2 method 1). SHA-1
only *names* here. Whoever trusts a fedid compares the whole public key that was pinned beside it.

Ed25519 is signed and verified by libsodium, which takes half of OpenSSL's time: two signatures and two verifications were most of
what a mesh request costs us. libsodium also refuses keys of small order, under which anything verifies.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from nacl import bindings
from nacl.exceptions import BadSignatureError

from fedkit.errors import InputError

RSA_MINIMUM_BITS = 2048
RSA_MAXIMUM_BITS = 8192  # a larger one costs its verifier, not its owner
P256_COORDINATE = 32

PublicKeyTypes = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
PrivateKeyTypes = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_FEDID = re.compile(r"[0-9a-f]{40}\Z")


class UnusableKey(InputError):
    """A key or certificate that cannot be used as an identity."""

    code = "identity.unusable_key"


def is_fedid(text: str) -> bool:
    """Tell whether `text` is written as a fedid: 40 lower-case hex digits."""
    return _FEDID.match(text) is not None


@dataclass(frozen=True)
class PublicKey:
    """A public key as its DER SubjectPublicKeyInfo; equal keys are equal octets."""

    spki: bytes

    @classmethod
    def from_spki(cls, spki: bytes) -> PublicKey:
        """Parse and check a DER SubjectPublicKeyInfo; raise `UnusableKey` for another type or a weak key."""
        try:
            key = serialization.load_der_public_key(spki)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UnusableKey("Not a DER public key of a type that is used here.") from error
        return cls.of(key)

    @classmethod
    def of(cls, key: object) -> PublicKey:
        """Wrap a key of the `cryptography` library after checking type and size."""
        if isinstance(key, rsa.RSAPublicKey):
            if not RSA_MINIMUM_BITS <= key.key_size <= RSA_MAXIMUM_BITS:
                raise UnusableKey(
                    f"RSA keys must have {RSA_MINIMUM_BITS} to {RSA_MAXIMUM_BITS} bits; this one has {key.key_size}."
                )
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if not isinstance(key.curve, ec.SECP256R1):
                raise UnusableKey(f"Only the curve P-256 is used; this key is on {key.curve.name}.")
        elif not isinstance(key, ed25519.Ed25519PublicKey):
            raise UnusableKey("Keys are RSA, P-256 or Ed25519.")
        spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return cls(spki)

    @classmethod
    def from_file(cls, path: Path) -> PublicKey:
        """Read a PEM or DER certificate or public key."""
        data = path.read_bytes()
        attempts: tuple[Callable[[], object], ...] = (
            lambda: x509.load_pem_x509_certificate(data).public_key(),
            lambda: serialization.load_pem_public_key(data),
            lambda: x509.load_der_x509_certificate(data).public_key(),
            lambda: serialization.load_der_public_key(data),
        )
        for attempt in attempts:
            try:
                key = attempt()
            except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
                continue
            return cls.of(key)
        raise UnusableKey(f"{path} is neither a certificate nor a public key, in PEM or DER.")

    @cached_property
    def key(self) -> PublicKeyTypes:
        """The key object of the `cryptography` library."""
        return serialization.load_der_public_key(self.spki)  # type: ignore[return-value]

    @cached_property
    def fedid(self) -> str:
        """The fedid, 40 lower-case hex digits (RFC 3280 §4.2.1.2 method 1)."""
        # The extension's builder implements exactly method 1 over the BIT STRING's contents.
        return x509.SubjectKeyIdentifier.from_public_key(self.key).digest.hex()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the SubjectPublicKeyInfo, hex: what a person compares when it matters."""
        return hashlib.sha256(self.spki).hexdigest()

    @cached_property
    def algorithm(self) -> str:
        """The one JWS algorithm this key signs with (RFC 7518 §3.1, RFC 8037): EdDSA, ES256 or PS256."""
        if isinstance(self.key, ed25519.Ed25519PublicKey):
            return "EdDSA"
        return "ES256" if isinstance(self.key, ec.EllipticCurvePublicKey) else "PS256"

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Tell whether `signature` over `message` was made by this key's owner (JWS encodings)."""
        try:
            match self.key:
                case ed25519.Ed25519PublicKey():
                    if len(signature) != bindings.crypto_sign_BYTES:
                        return False
                    bindings.crypto_sign_open(signature + message, self._raw)
                case ec.EllipticCurvePublicKey():
                    if len(signature) != 2 * P256_COORDINATE:
                        return False
                    r, s = (int.from_bytes(signature[i : i + P256_COORDINATE], "big") for i in (0, P256_COORDINATE))
                    self.key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
                case rsa.RSAPublicKey():
                    self.key.verify(signature, message, _PS256, hashes.SHA256())
        except (InvalidSignature, BadSignatureError):
            return False
        return True

    @cached_property
    def _raw(self) -> bytes:
        return self.key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


_PS256 = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


@dataclass(frozen=True, repr=False)
class PrivateKey:
    """A private key; never printed."""

    key: PrivateKeyTypes

    def __repr__(self) -> str:
        return f"PrivateKey({self.public.fedid})"

    @classmethod
    def generate(cls, kind: str = "ed25519") -> PrivateKey:
        """Make a new key: `ed25519` (default), `p256` or `rsa` (3072 bits)."""
        if kind == "ed25519":
            return cls(ed25519.Ed25519PrivateKey.generate())
        if kind == "p256":
            return cls(ec.generate_private_key(ec.SECP256R1()))
        if kind == "rsa":
            return cls(rsa.generate_private_key(65537, 3072))
        raise UnusableKey(f"Unknown key type {kind!r}; use ed25519, p256 or rsa.")

    @classmethod
    def load(cls, path: Path) -> PrivateKey:
        """Read an unencrypted PEM private key; refuse a file that others can read."""
        if path.stat().st_mode & 0o077:
            raise UnusableKey(f"{path} can be read by others; run: chmod 600 {path}")
        return cls.from_pem(path.read_bytes(), str(path))

    @classmethod
    def from_pem(cls, pem: bytes, where: str = "This") -> PrivateKey:
        """Read an unencrypted PEM private key; `where` is what an error calls it."""
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise UnusableKey(f"{where} is not an unencrypted PEM private key.") from error
        PublicKey.of(key.public_key())
        return cls(key)  # type: ignore[arg-type]

    @property
    def pem(self) -> bytes:
        """The key as PEM (PKCS #8), unencrypted: only for places that nobody else can read."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def save(self, path: Path) -> None:
        """Write as PEM (PKCS #8), readable by the owner alone; never overwrite."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.pem)

    @cached_property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey.of(self.key.public_key())

    @property
    def fedid(self) -> str:
        """The fedid of the public half."""
        return self.public.fedid

    def sign(self, message: bytes) -> bytes:
        """Sign with the key's one algorithm, in the encoding that JWS uses (RFC 7518 §3.4 for P-256)."""
        if isinstance(self.key, ed25519.Ed25519PrivateKey):
            return bindings.crypto_sign(message, self._raw)[: bindings.crypto_sign_BYTES]
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(P256_COORDINATE, "big") + s.to_bytes(P256_COORDINATE, "big")
        return self.key.sign(message, _PS256, hashes.SHA256())

    @cached_property
    def _raw(self) -> bytes:
        """An Ed25519 key as libsodium takes it: seed and public key."""
        assert isinstance(self.key, ed25519.Ed25519PrivateKey)
        return self.key.private_bytes_raw() + self.key.public_key().public_bytes_raw()
