"""Whose keys are known, and under which names: the identity files of creddy, and what credentials carry along.

creddy keeps a principal in `<CN>_ID.pem`, a self-signed certificate, and `<CN>_private.pem`, its key; both may stand in one file.
Such a certificate is only an envelope: what counts is the key, whose fedid is the principal. Its term and its own signature say
nothing, and its common name (a mnemonic) is for people to read, always beside the fedid.

A fedid is a SHA-1 hash; so a second key under a known fedid is refused (DESIGN §3).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from fedkit.identity.keys import PrivateKey, PublicKey, is_fedid
from fedkit.policy.errors import TwoKeys, UnusableIdentity

LIMIT = 64 * 1024  # octets of an identity file
NAME_LIMIT = 64  # characters, as of a common name (RFC 5280, ub-common-name)
CREDDY_DAYS = 1080  # creddy's default term

_MALFORMED = (ValueError, x509.InvalidVersion)  # how `cryptography` tells of a malformed certificate


@dataclass(frozen=True)
class Identity:
    """A principal's public key, and the certificate that it came in."""

    key: PublicKey
    certificate: x509.Certificate | None = None

    @property
    def fedid(self) -> str:
        """The principal."""
        return self.key.fedid

    @property
    def name(self) -> str | None:
        """The certificate's common name."""
        return None if self.certificate is None else common_name(self.certificate)


class Identities:
    """The keys that are known, one under each fedid, and names for people."""

    def __init__(self, identities: Iterable[Identity] = ()) -> None:
        self._keys: dict[str, PublicKey] = {}
        self._names: dict[str, str] = {}
        for identity in identities:
            self.add(identity)

    def add(self, identity: Identity) -> None:
        """Learn a key and its name; raise `TwoKeys` for a second key under one fedid."""
        self.pin(identity.key, identity.name)

    def pin(self, key: PublicKey, name: str | None = None) -> None:
        """Learn a key; the first name that is told stays. Raise `TwoKeys`."""
        known = self._keys.setdefault(key.fedid, key)
        if known.spki != key.spki:
            raise TwoKeys(
                f"Two keys claim the fedid {key.fedid}; compare their SHA-256: {known.fingerprint} and {key.fingerprint}.",
                fedid=key.fedid,
            )
        if name:
            self._names.setdefault(key.fedid, name)

    def call(self, fedid: str, name: str) -> None:
        """Learn a name for a principal whose key need not be known; only where it has none yet."""
        if is_fedid(fedid) and (usable := printable(name)):
            self._names.setdefault(fedid, usable)

    def get(self, fedid: str) -> PublicKey | None:
        """Return the key of `fedid`, if known."""
        return self._keys.get(fedid)

    @property
    def names(self) -> Mapping[str, str]:
        """Names by fedid; what somebody is called proves nothing."""
        return self._names

    def __len__(self) -> int:
        return len(self._keys)


def read_identity(data: bytes) -> Identity:
    """Read a certificate or a public key, in DER, or in PEM where other things may stand beside it; raise `UnusableIdentity`.

    A private key in the same file is not looked at. Raises `UnusableKey` for a key that is too weak to be an identity.
    """
    if len(data) > LIMIT:
        raise UnusableIdentity(f"An identity file has at most {LIMIT} octets; this one has {len(data)}.")
    pem = b"-----BEGIN " in data
    if not pem or b"-----BEGIN CERTIFICATE-----" in data:
        load = x509.load_pem_x509_certificate if pem else x509.load_der_x509_certificate
        try:
            certificate = load(data)
        except _MALFORMED as error:
            if pem:
                raise UnusableIdentity("The certificate is malformed.") from error
        else:
            return Identity(key_in(certificate), certificate)
    return Identity(_public(data))


def holds_only_private_key(data: bytes) -> bool:
    """Tell whether `data` is a PEM file with a private key and no identity beside it, as creddy's `_private.pem`."""
    labels = set(re.findall(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----", data[:LIMIT]))
    return bool(labels) and all(label.endswith(b"PRIVATE KEY") for label in labels)


def self_signed(key: PrivateKey, name: str, begin: datetime.datetime, days: int = CREDDY_DAYS) -> x509.Certificate:
    """Make the certificate of a creddy identity file: self-signed, CN=`name`, with the fedid as subject key identifier."""
    if printable(name) != name:
        raise UnusableIdentity(f"A name is 1 to {NAME_LIMIT} printable characters; {name!r} is not.")
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    public = key.public.key
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return builder.sign(key.key, None if isinstance(key.key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def common_name(certificate: x509.Certificate) -> str | None:
    """Return the subject's common name as far as it can be shown to a person."""
    try:
        attributes = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ValueError, TypeError):  # a subject that is no Name, or no text; only its key is of interest
        return None
    return printable(str(attributes[0].value)) if attributes else None


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse a DER certificate; raise `UnusableIdentity`."""
    try:
        return x509.load_der_x509_certificate(der)
    except _MALFORMED as error:
        raise UnusableIdentity("Not an X.509 certificate.") from error


def key_in(certificate: x509.Certificate) -> PublicKey:
    """Return the certificate's key; raise `UnusableKey` or `UnusableIdentity`."""
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableIdentity("The certificate's key is of no type that is used here.") from error
    return PublicKey.of(key)


def printable(name: str) -> str | None:
    """Return `name` cut to what may be shown, or None: control characters of a stranger must not reach a terminal."""
    kept = "".join(char for char in name if char.isprintable()).strip()[:NAME_LIMIT]
    return kept or None


def _public(data: bytes) -> PublicKey:
    load = (
        serialization.load_pem_public_key if data.lstrip().startswith(b"-----") else serialization.load_der_public_key
    )
    try:
        key = load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UnusableIdentity("Neither a certificate nor a key, in PEM or DER.") from error
    return PublicKey.of(key)
