"""X.509 attribute certificates that other writers made, or that somebody bent."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithms

from fedkit.identity.keys import PrivateKey
from fedkit.policy.errors import BadCredential, MissingIssuer, WeakSignature
from fedkit.policy.formats import Form, read, write
from fedkit.policy.formats.attribute_certificate import (
    ATTRIBUTE,
    _Algorithm,
    _Attribute,
    _Certificate,
    _Extension,
    _Info,
    _Statements,
    _Term,
)
from fedkit.policy.formats.identities import Identities, Identity
from fedkit.policy.model import Credential, Statement

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
KEY = PrivateKey(rsa.generate_private_key(65537, 2048))
OTHER = PrivateKey.generate("p256")
STATEMENT = Statement.parse(f"{KEY.fedid}.a <- {OTHER.fedid}")
KNOWN = Identities([Identity(KEY.public), Identity(OTHER.public)])
GENUINE = write(Form.X509, KEY, STATEMENT, NOW)


def resign(algorithm: x509.ObjectIdentifier = Algorithms.RSA_WITH_SHA256, **changes: Any) -> bytes:
    """The genuine certificate with other contents, signed again by its issuer."""
    info = asn1.decode_der(_Info, asn1.encode_der(asn1.decode_der(_Certificate, GENUINE).info))
    for name, value in {"signature": _Algorithm(algorithm=algorithm, parameters=asn1.Null()), **changes}.items():
        setattr(info, name, value)
    signed = asn1.encode_der(info)
    made = {Algorithms.RSA_WITH_SHA1: hashes.SHA1(), Algorithms.RSA_WITH_SHA512: hashes.SHA512()}.get(
        algorithm, hashes.SHA256()
    )
    assert isinstance(KEY.key, rsa.RSAPrivateKey)
    return asn1.encode_der(
        _Certificate(
            info=asn1.decode_der(asn1.TLV, signed),
            algorithm=_Algorithm(algorithm=algorithm, parameters=asn1.Null()),
            signature=asn1.BitString(KEY.key.sign(signed, padding.PKCS1v15(), made), 0),
        )
    )


def accept(data: bytes, allow_sha1: bool = False) -> Credential:
    """Read one certificate."""
    (credential,) = read(data, identities=KNOWN, allow_sha1=allow_sha1)
    return credential


def extension(oid: str, value: bytes, critical: bool | None = None) -> _Extension:
    """An extension of a certificate."""
    return _Extension(id=x509.ObjectIdentifier(oid), critical=critical, value=value)


def attribute(*texts: str, oid: x509.ObjectIdentifier = ATTRIBUTE) -> _Attribute:
    """An attribute with these strings."""
    value = asn1.decode_der(asn1.TLV, asn1.encode_der(_Statements(values=list(texts))))
    return _Attribute(type=oid, values=asn1.SetOf([value]))


def term(begin: datetime.datetime, end: datetime.datetime) -> _Term:
    """A validity period."""
    return _Term(not_before=asn1.GeneralizedTime(begin), not_after=asn1.GeneralizedTime(end))


def test_certificates_of_libabacs_time_need_the_setting() -> None:
    """strongSwan signed with SHA-1, and set a beginning."""
    begin = NOW - datetime.timedelta(days=1)
    data = resign(Algorithms.RSA_WITH_SHA1, term=term(begin, NOW))
    with pytest.raises(WeakSignature):
        accept(data)
    assert (accept(data, allow_sha1=True).statement, accept(data, allow_sha1=True).not_before) == (STATEMENT, begin)


def test_stronger_digests_are_read() -> None:
    assert accept(resign(Algorithms.RSA_WITH_SHA512)).id == accept(GENUINE).id


@pytest.mark.parametrize(
    "extensions", [None, [extension("1.2.3", b"x")], [extension("2.5.29.35", bytes.fromhex("3000"), critical=False)]]
)
def test_other_extensions_do_no_harm(extensions: list[_Extension] | None) -> None:
    assert accept(resign(extensions=extensions)).statement == STATEMENT


def test_blanks_around_the_arrow_do_not_matter() -> None:
    assert accept(resign(attributes=[attribute(str(STATEMENT).replace(" ", ""))])).statement == STATEMENT


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 0},
        {"version": 2},
        {"attributes": []},
        {"attributes": [attribute()]},
        {"attributes": [attribute(str(STATEMENT), str(STATEMENT))]},
        {"attributes": [attribute(str(STATEMENT)), attribute(str(STATEMENT))]},
        {"attributes": [attribute(str(STATEMENT), oid=x509.ObjectIdentifier("1.2.3"))]},
        {"attributes": [attribute("hello")]},
        {"attributes": [attribute(f"{OTHER.fedid}.a <- {KEY.fedid}")]},
        {"extensions": [extension("2.5.29.35", x509.AuthorityKeyIdentifier(bytes(20), None, None).public_bytes())]},
        {"extensions": [extension("2.5.29.35", b"nonsense")]},
        {"extensions": [extension("1.2.3", b"x", critical=True)]},
        {"term": term(NOW, NOW)},
        {"term": term(NOW, NOW - datetime.timedelta(seconds=1))},
        {"signature": _Algorithm(algorithm=Algorithms.RSA_WITH_SHA512, parameters=None)},
        {"algorithm": Algorithms.ED25519},
        {"algorithm": Algorithms.RSA_WITH_MD5},
        {"algorithm": Algorithms.ECDSA_WITH_SHA256},
    ],
)
def test_a_well_signed_contradiction_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadCredential):
        accept(resign(**changes))


def test_trailing_octets_are_refused() -> None:
    with pytest.raises(BadCredential):
        accept(GENUINE + b"\x00")


def test_a_signature_is_whole_octets() -> None:
    certificate = asn1.decode_der(_Certificate, GENUINE)
    while certificate.signature.as_bytes()[-1] & 1:  # padding bits are zero in DER
        certificate = asn1.decode_der(_Certificate, write(Form.X509, KEY, STATEMENT, NOW))
    certificate.signature = asn1.BitString(certificate.signature.as_bytes(), 1)
    with pytest.raises(BadCredential):
        accept(asn1.encode_der(certificate))


def test_who_is_missing_is_told() -> None:
    with pytest.raises(MissingIssuer) as caught:
        read(GENUINE, identities=Identities([Identity(OTHER.public)]))
    assert caught.value.details == {"issuer": KEY.fedid}
