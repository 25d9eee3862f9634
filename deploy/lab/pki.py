"""The lab's certificate authority, and the certificates of its XMPP servers.

A server is trusted by the names in its certificate (RFC 6125, XEP-0178), and servers speak for pairs of domains, so it must
name every component of its site. Bad certificates are issued on request, because refusing them is what must be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deploy.lab.topology import Site

LIFE = timedelta(days=30)
USAGES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # a server is the client of its peers


@dataclass(frozen=True)
class Certificate:
    """A certificate and its private key, in PEM."""

    certificate: str
    key: str


class Authority:
    """A certificate authority that lives as long as the lab."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = now or datetime.now(UTC)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedmesh lab")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        self._certificate = self._builder(self._name, self._key.public_key()).add_extension(constraints, critical=True)

    @property
    def certificate(self) -> str:
        """The authority's own certificate, PEM."""
        return _pem(self._certificate.sign(self._key, hashes.SHA256()))

    def issue(self, names: list[str], *, expired: bool = False) -> Certificate:
        """Certify a new key for these DNS names; `expired` makes a certificate that ended yesterday."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        builder = self._builder(subject, key.public_key(), -2 * LIFE if expired else timedelta(0))
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(USAGES), critical=False)
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Certificate(_pem(builder.sign(self._key, hashes.SHA256())), secret.decode())

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, shift: timedelta = timedelta(0)
    ) -> x509.CertificateBuilder:
        begin = self._now - timedelta(days=1) + shift
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + LIFE)
        )


def names(site: Site) -> list[str]:
    """The DNS names that a site's certificate must hold."""
    return [site.domain, *(component.domain for component in site.components)]


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
