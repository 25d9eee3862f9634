"""libabac's older form of a credential: an X.509 attribute certificate (RFC 3281, now RFC 5755; version 2), in DER.

    holder and issuer   CN=<fedid of the head's principal>
    attribute           1.3.6.1.5.5.7.10.4: SEQUENCE { SEQUENCE { UTF8String "A.r <- B" } }
    extension           AuthorityKeyIdentifier: that fedid again

It does not carry its issuer's key: the identity file must be at hand. What names the issuer is the statement's head; the key
identifier must not contradict it, and the names inside are for people. A term without a beginning is written as beginning in
1970, and read as none.
"""

from __future__ import annotations

import datetime
import secrets
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithms

from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.policy.errors import BadCredential, MissingIssuer, WeakSignature
from fedkit.policy.formats.identities import Identities
from fedkit.policy.model import STATEMENT_LIMIT, Credential, Statement, UnusableStatement

ENCODING = "x509"
LIMIT = 2 * STATEMENT_LIMIT  # octets
ATTRIBUTE = x509.ObjectIdentifier("1.3.6.1.5.5.7.10.4")  # id-aca-group
VERSION = 1  # "v2"
ALWAYS = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

_HASHES: dict[x509.ObjectIdentifier, hashes.HashAlgorithm] = {
    Algorithms.RSA_WITH_SHA1: hashes.SHA1(),  # noqa: S303 - read only where a setting allows it
    Algorithms.RSA_WITH_SHA256: hashes.SHA256(),
    Algorithms.RSA_WITH_SHA384: hashes.SHA384(),
    Algorithms.RSA_WITH_SHA512: hashes.SHA512(),
}


_DirectoryName = Annotated[asn1.TLV, asn1.Explicit(4)]  # of GeneralName's choices


@asn1.sequence
class _Algorithm:
    algorithm: x509.ObjectIdentifier
    parameters: asn1.Null | None


@asn1.sequence
class _Holder:
    """What we write: entityName; what is read is not looked into."""

    entity_name: Annotated[list[_DirectoryName], asn1.Implicit(1)]


@asn1.sequence
class _Issuer:
    """V2Form with an issuerName alone, as the profile demands (RFC 5755 §4.2.3)."""

    name: list[_DirectoryName]


@asn1.sequence
class _Term:
    not_before: asn1.GeneralizedTime
    not_after: asn1.GeneralizedTime


@asn1.sequence
class _Attribute:
    type: x509.ObjectIdentifier
    values: asn1.SetOf[asn1.TLV]


@asn1.sequence
class _Statements:
    """IetfAttrSyntax with UTF8Strings and no policy authority (RFC 5755 §4.4)."""

    values: list[str]


@asn1.sequence
class _Extension:
    id: x509.ObjectIdentifier
    critical: bool | None  # old writers spell the default out
    value: bytes


@asn1.sequence
class _Info:
    version: int
    holder: asn1.TLV
    issuer: Annotated[_Issuer, asn1.Implicit(0)]
    signature: _Algorithm
    serial: int
    term: _Term
    attributes: list[_Attribute]
    unique_id: asn1.BitString | None
    extensions: list[_Extension] | None


@asn1.sequence
class _Certificate:
    info: asn1.TLV
    algorithm: _Algorithm
    signature: asn1.BitString


def read(data: bytes, identities: Identities, *, allow_sha1: bool = False) -> Credential:
    """Check an attribute certificate against the issuer's key in `identities`; raise `BadCredential` or a kind of it."""
    if len(data) > LIMIT:
        raise BadCredential(f"An attribute certificate has at most {LIMIT} octets; this one has {len(data)}.")
    try:
        certificate = asn1.decode_der(_Certificate, data)
        signed = asn1.encode_der(certificate.info)
        info = asn1.decode_der(_Info, signed)
        statement = Statement.parse(_statement(info))
    except UnusableStatement as error:
        raise BadCredential(f"Not a credential: {error.message}") from error
    except ValueError as error:
        raise BadCredential(f"Not an attribute certificate of ABAC: {error}.") from error
    _consistent(certificate, info, statement)
    issuer = identities.get(statement.head.principal)
    if issuer is None:
        raise MissingIssuer(
            f"The certificate does not carry the key of {statement.head.principal}; its identity file is needed as well.",
            issuer=statement.head.principal,
        )
    _verify(issuer, certificate.algorithm.algorithm, certificate.signature.as_bytes(), signed, allow_sha1)
    begin, end = _term(info.term)
    return Credential(statement, issuer, end, begin, ENCODING, data)


def write(
    key: PrivateKey, statement: Statement, expires: datetime.datetime, not_before: datetime.datetime | None = None
) -> bytes:
    """Sign `statement`, whose head must be a role of `key`'s owner; times are cut to whole seconds."""
    if key.fedid != statement.head.principal:
        raise BadCredential(
            f"Only {statement.head.principal} can say who has {statement.head}; this key is {key.fedid}'s."
        )
    name = _tlv(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, key.fedid)]).public_bytes())
    key_id = x509.AuthorityKeyIdentifier(bytes.fromhex(key.fedid), None, None)
    told = _Statements(values=[str(statement)])
    info = _Info(
        version=VERSION,
        holder=_tlv(asn1.encode_der(_Holder(entity_name=[name]))),
        issuer=_Issuer(name=[name]),
        signature=_algorithm(key),
        serial=secrets.randbits(128),
        term=_Term(not_before=_time(not_before or ALWAYS), not_after=_time(expires)),
        attributes=[_Attribute(type=ATTRIBUTE, values=asn1.SetOf([_tlv(asn1.encode_der(told))]))],
        unique_id=None,
        extensions=[_Extension(id=key_id.oid, critical=None, value=key_id.public_bytes())],
    )
    signed = asn1.encode_der(info)
    signature = asn1.BitString(_sign(key, signed), 0)
    return asn1.encode_der(_Certificate(info=_tlv(signed), algorithm=info.signature, signature=signature))


def _statement(info: _Info) -> str:
    values = [
        value for attribute in info.attributes if attribute.type == ATTRIBUTE for value in attribute.values.as_list()
    ]
    texts = [text for value in values for text in asn1.decode_der(_Statements, asn1.encode_der(value)).values]
    if len(texts) != 1:
        raise ValueError(f"it holds {len(texts)} statements instead of one")
    return texts[0]


def _consistent(certificate: _Certificate, info: _Info, statement: Statement) -> None:
    if info.version != VERSION:
        raise BadCredential("Only version 2 of attribute certificates is read.")
    if certificate.algorithm.algorithm != info.signature.algorithm:
        raise BadCredential("The certificate names two different signature algorithms.")
    if certificate.signature.padding_bits() != 0:
        raise BadCredential("The signature is not a whole number of octets.")
    for extension in info.extensions or ():
        if extension.id == x509.AuthorityKeyIdentifier.oid:
            key_id = _key_identifier(extension.value)
            if key_id is not None and key_id.hex() != statement.head.principal:
                raise BadCredential(
                    f"The certificate is by {key_id.hex()[:40]}, its statement by {statement.head.principal}."
                )
        elif extension.critical:
            raise BadCredential(
                f"The certificate has the critical extension {extension.id.dotted_string}, which is not known here."
            )


@asn1.sequence
class _KeyIdentifier:
    """AuthorityKeyIdentifier as far as it is of interest (RFC 5280 §4.2.1.1)."""

    key_id: Annotated[bytes | None, asn1.Implicit(0)]
    issuer: Annotated[list[asn1.TLV] | None, asn1.Implicit(1)]
    serial: Annotated[int | None, asn1.Implicit(2)]


def _key_identifier(value: bytes) -> bytes | None:
    try:
        return asn1.decode_der(_KeyIdentifier, value).key_id
    except ValueError as error:
        raise BadCredential("The authority key identifier is malformed.") from error


def _term(term: _Term) -> tuple[datetime.datetime | None, datetime.datetime]:
    begin, end = (time.as_datetime().astimezone(datetime.UTC) for time in (term.not_before, term.not_after))
    if begin >= end:
        raise BadCredential("The credential expires before it begins.")
    return None if begin == ALWAYS else begin, end


def _verify(
    issuer: PublicKey, algorithm: x509.ObjectIdentifier, signature: bytes, signed: bytes, allow_sha1: bool
) -> None:
    if algorithm == Algorithms.RSA_WITH_SHA1 and not allow_sha1:
        raise WeakSignature(
            "The signature is made with SHA-1, which is accepted only where the setting for old files says so."
        )
    try:
        match issuer.key:
            case rsa.RSAPublicKey() if algorithm in _HASHES:
                issuer.key.verify(signature, signed, padding.PKCS1v15(), _HASHES[algorithm])
            case ec.EllipticCurvePublicKey() if algorithm == Algorithms.ECDSA_WITH_SHA256:
                issuer.key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
            case ed25519.Ed25519PublicKey() if algorithm == Algorithms.ED25519:
                issuer.key.verify(signature, signed)
            case _:
                raise BadCredential(f"{issuer.fedid} has no key for signatures of type {algorithm.dotted_string}.")
    except InvalidSignature as error:
        raise BadCredential(f"The signature was not made by {issuer.fedid}.") from error


def _algorithm(key: PrivateKey) -> _Algorithm:
    match key.key:
        case rsa.RSAPrivateKey():
            return _Algorithm(algorithm=Algorithms.RSA_WITH_SHA256, parameters=asn1.Null())
        case ec.EllipticCurvePrivateKey():
            return _Algorithm(algorithm=Algorithms.ECDSA_WITH_SHA256, parameters=None)
        case ed25519.Ed25519PrivateKey():
            return _Algorithm(algorithm=Algorithms.ED25519, parameters=None)


def _sign(key: PrivateKey, message: bytes) -> bytes:
    match key.key:
        case rsa.RSAPrivateKey():
            return key.key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            return key.key.sign(message, ec.ECDSA(hashes.SHA256()))
        case ed25519.Ed25519PrivateKey():
            return key.key.sign(message)


def _tlv(der: bytes) -> asn1.TLV:
    return asn1.decode_der(asn1.TLV, der)


def _time(at: datetime.datetime) -> asn1.GeneralizedTime:
    return asn1.GeneralizedTime(at.astimezone(datetime.UTC).replace(microsecond=0))
