"""Credentials as files, in every form that is in use: ours, libabac's two, and GENI's.

    compact          our own, a JWS that carries its issuer's key; any key                     *.cred
    x509             RFC 3281 attribute certificate; the issuer's key must be known            *_attr.der
    geni-1.0, -1.1   signed XML that carries the issuer's certificate; RSA and P-256           *_attr.xml
    geni-privilege   GENI's privileges, read as RT0 statements                                 (read only)

`read` tells them apart by their first octets. All that is read is hostile until its signature has been checked, and a credential that is
returned has been: its head's principal signed it. Whether it holds now, `holds_at` tells.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from cryptography import x509

from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.policy.errors import BadCredential, Expired, NotExpressible, NotYetValid
from fedkit.policy.formats import attribute_certificate, geni
from fedkit.policy.formats.identities import Identities
from fedkit.policy.model import STATEMENT_LIMIT, Credential, Statement

LIMIT = 2 * STATEMENT_LIMIT  # octets of one file
_NO_NAMES: Mapping[str, str] = MappingProxyType({})
_ASN1_SEQUENCE = b"\x30"


class Form(StrEnum):
    """The forms that can be written; the values are a credential's `encoding`."""

    COMPACT = compact.ENCODING
    X509 = attribute_certificate.ENCODING
    GENI_1_0 = geni.Version.V1_0
    GENI_1_1 = geni.Version.V1_1


def read(data: bytes, *, identities: Identities, allow_sha1: bool = False) -> list[Credential]:
    """Read a credential in whatever form; several, where one text says several things.

    `identities` are the keys known so far; keys that credentials carry are added to them. Raises `BadCredential` or a kind of it
    (`MissingIssuer`, `WeakSignature`), `TwoKeys` for a second key under one fedid, `UnusableKey` for a weak key.
    """
    if len(data) > LIMIT:
        raise BadCredential(f"A credential has at most {LIMIT} octets; this one has {len(data)}.")
    if data.startswith(_ASN1_SEQUENCE):
        return [attribute_certificate.read(data, identities, allow_sha1=allow_sha1)]
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return geni.read(data, identities, allow_sha1=allow_sha1)
    try:
        text = data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise BadCredential("Not a credential in any form that is known here.") from None
    credential = compact.read(text)
    identities.pin(credential.issuer)
    return [credential]


def write(
    form: Form,
    key: PrivateKey,
    statement: Statement,
    expires: datetime.datetime,
    not_before: datetime.datetime | None = None,
    *,
    certificate: x509.Certificate | None = None,
    names: Mapping[str, str] = _NO_NAMES,
) -> bytes:
    """Sign `statement` with its head's key, in `form`; times are cut to whole seconds.

    `certificate` is the issuer's, carried along in XML; `names` become mnemonics there. Raises `NotExpressible` for XML with a
    beginning or an Ed25519 key, and `BadCredential` for another's statement.
    """
    match form:
        case Form.COMPACT:
            return compact.issue(key, statement, expires, not_before).raw
        case Form.X509:
            return attribute_certificate.write(key, statement, expires, not_before)
    if not_before is not None:
        raise NotExpressible("XML credentials cannot say when they begin; use the compact form or x509.")
    return geni.write(geni.Version(form), key, statement, expires, certificate, names)


def check_term(credential: Credential, at: datetime.datetime) -> None:
    """Raise `Expired` or `NotYetValid` for a credential that does not hold at `at`."""
    if credential.holds_at(at):
        return
    if at >= credential.expires:
        raise Expired(f"It expired at {credential.expires:%Y-%m-%d %H:%M:%S} UTC.")
    raise NotYetValid(f"It holds from {credential.not_before:%Y-%m-%d %H:%M:%S} UTC on.")
