"""Proof of possession by TLS: the fedid of a peer's self-signed certificate.

Both sides show a certificate that they signed themselves. It is trusted because it was *pinned* before, as the very certificate: it is
a trust anchor of its own (X509_V_FLAG_PARTIAL_CHAIN), no authority is asked and no host name compared. The handshake's
CertificateVerify (RFC 8446 §4.4.3) then proves that the peer has the key; TLS 1.2 and older, whose renegotiation and RSA key
exchange blur that, are refused. Python's ssl cannot be told to accept a certificate that is not known, ask for
possession all the same, and leave the judgement to us; so who is not pinned does not get a connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from fedkit.errors import Exit, InputError
from fedkit.identity.keys import PrivateKey, PublicKey


class NoCertificate(InputError):
    """The peer of a TLS connection showed no certificate."""

    code = "identity.no_certificate"
    http = 403
    exit = Exit.REFUSED


def self_signed(key: PrivateKey, begins: datetime, term: timedelta) -> bytes:
    """Return a certificate (PEM) in which a key's owner says that it is theirs; the name in it is the fedid."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key.fedid)])
    public = key.public.key
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + term)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key.key, None if isinstance(key.key, Ed25519PrivateKey) else hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)


def context(own: Path, pinned: Iterable[bytes], *, server: bool) -> ssl.SSLContext:
    """Return a context that shows the certificate in the file `own` (PEM, with its key) and takes only `pinned` peers (PEM)."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False  # a peer is who its key says, wherever it is
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    made.load_cert_chain(own)
    for certificate in pinned:
        made.load_verify_locations(cadata=certificate.decode("ascii"))
    return made


def key_of_peer(connection: ssl.SSLSocket | ssl.SSLObject) -> PublicKey:
    """Return the key that the peer of an established connection has proved to have; raise `NoCertificate`."""
    der = connection.getpeercert(binary_form=True)
    if der is None:
        raise NoCertificate("The peer showed no certificate.")
    return PublicKey.of(x509.load_der_x509_certificate(der).public_key())
