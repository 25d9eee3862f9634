"""Credentials of GENI's type `abac`, versions 1.0 and 1.1, as libabac 0.1.4 and later write and read them.

1.0   credential { type abac, version 1.0, expires, rt0 "A.r<-B & C" }
1.1   credential { type abac, serial, owner_gid, target_gid, uuid, expires, abac { rt0 { version 1.1, head, tail+ } } }
      head, tail: ABACprincipal { keyid, mnemonic? }, role?, linking_role?       B.r1.r2 has linking_role r1 and role r2

They say when a credential ends, not when it begins. The key that signed must be the head's; the certificate that comes along makes
its issuer known, so that no identity file is needed.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from enum import StrEnum

from cryptography import x509
from lxml import etree

from fedkit.identity.keys import PrivateKey
from fedkit.policy.errors import BadCredential
from fedkit.policy.formats import privilege
from fedkit.policy.formats.identities import Identities, common_name, self_signed
from fedkit.policy.formats.xml_signature import CREDENTIAL, Envelope, many, one, open_envelope, seal, text_of
from fedkit.policy.model import Credential, Entity, Linked, Part, Role, Statement, UnusableStatement


class Version(StrEnum):
    """The two versions of type `abac`, by the names of their encodings."""

    V1_0 = "geni-1.0"
    V1_1 = "geni-1.1"


def read(data: bytes, identities: Identities, *, allow_sha1: bool = False) -> list[Credential]:
    """Check an XML credential of type `abac` (one statement) or `privilege` (several); raise `BadCredential` or a kind of it.

    Its issuer, and the mnemonics in it, become known in `identities`; raise `TwoKeys` where another key has that fedid.
    """
    return interpret(open_envelope(data, allow_sha1=allow_sha1), data, identities)


def interpret(envelope: Envelope, data: bytes, identities: Identities) -> list[Credential]:
    """Say what an envelope that was opened from `data` says; see `read`."""
    kind = text_of(one(envelope.credential, "type"))
    mnemonics: dict[str, str] = {}
    try:
        if kind == "abac":
            version, statement = _abac(envelope.credential, mnemonics)
            encoding, statements = version.value, [statement]
        elif kind == "privilege":
            encoding, statements = privilege.ENCODING, privilege.statements(envelope)
        else:
            raise BadCredential(f"GENI credentials of type abac and privilege are read; this one is {kind[:40]!r}.")
    except UnusableStatement as error:
        raise BadCredential(f"Not a credential: {error.message}") from error
    foreign = {statement.head.principal for statement in statements} - {envelope.key.fedid}
    if foreign:
        raise BadCredential(f"{envelope.key.fedid} signed a statement about a role of {foreign.pop()}.")
    expires = _expiry(envelope.credential)
    identities.pin(envelope.key, None if envelope.certificate is None else common_name(envelope.certificate))
    for fedid, name in mnemonics.items():
        identities.call(fedid, name)
    return [Credential(statement, envelope.key, expires, None, encoding, data) for statement in statements]


def write(
    version: Version,
    key: PrivateKey,
    statement: Statement,
    expires: datetime.datetime,
    certificate: x509.Certificate | None,
    names: Mapping[str, str],
) -> bytes:
    """Sign `statement` with its head's key; raise `NotExpressible`.

    Without a certificate one is made for the occasion, named by the fedid. `names` become mnemonics in version 1.1.
    """
    if key.fedid != statement.head.principal:
        raise BadCredential(
            f"Only {statement.head.principal} can say who has {statement.head}; this key is {key.fedid}'s."
        )
    if certificate is None:
        certificate = self_signed(key, key.fedid, expires - datetime.timedelta(days=1), 1)
    element = etree.Element(CREDENTIAL)
    until = expires.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if version is Version.V1_0:
        _add(element, "type", "abac")
        _add(element, "version", "1.0")
        _add(element, "expires", until)
        _add(element, "rt0", str(statement))
    else:
        for name, text in (("type", "abac"), ("serial", ""), ("owner_gid", ""), ("target_gid", ""), ("uuid", "")):
            _add(element, name, text)
        _add(element, "expires", until)
        rt0 = _add(_add(element, "abac"), "rt0")
        _add(rt0, "version", "1.1")
        _add_part(rt0, "head", statement.head, names)
        for part in statement.tail:
            _add_part(rt0, "tail", part, names)
    return seal(element, key, certificate)


def _abac(credential: etree._Element, mnemonics: dict[str, str]) -> tuple[Version, Statement]:
    direct = many(credential, "rt0")
    rt0 = direct[0] if len(direct) == 1 else one(one(credential, "abac"), "rt0")
    version = text_of(one(credential if many(credential, "version") else rt0, "version"))
    if version == "1.0":
        return Version.V1_0, Statement.parse(text_of(rt0))
    if version == "1.1":
        tail = tuple(_part(element, mnemonics) for element in many(rt0, "tail"))
        head = _part(one(rt0, "head"), mnemonics)
        if not isinstance(head, Role):
            raise BadCredential("The head of a credential is a role.")
        return Version.V1_1, Statement(head, tail)
    raise BadCredential(f"Versions 1.0 and 1.1 of GENI's ABAC credentials are read; this one is {version[:40]!r}.")


def _part(element: etree._Element, mnemonics: dict[str, str]) -> Part:
    principal = one(element, "ABACprincipal")
    fedid = text_of(one(principal, "keyid"))
    for mnemonic in many(principal, "mnemonic"):
        mnemonics[fedid] = text_of(mnemonic)
    role, link = (text_of(one(element, name)) if many(element, name) else None for name in ("role", "linking_role"))
    if role is None:
        if link is not None:
            raise BadCredential("A linking_role stands beside a role.")
        return Entity(fedid)
    return Role(fedid, role) if link is None else Linked(fedid, link, role)


def _expiry(credential: etree._Element) -> datetime.datetime:
    """Read ISO 8601, in UTC where no zone is told."""
    text = text_of(one(credential, "expires"))
    try:
        at = datetime.datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).astimezone(datetime.UTC).replace(microsecond=0)
    except (ValueError, OverflowError) as error:
        raise BadCredential(f"The time of expiry is not in ISO 8601: {text[:40]!r}.") from error


def _add(parent: etree._Element, name: str, text: str | None = None) -> etree._Element:
    element = etree.SubElement(parent, name)
    element.text = text or None
    return element


def _add_part(parent: etree._Element, name: str, part: Part, names: Mapping[str, str]) -> None:
    element = _add(parent, name)
    principal = _add(element, "ABACprincipal")
    fedid = part.fedid if isinstance(part, Entity) else part.principal
    _add(principal, "keyid", fedid)
    if fedid in names:
        _add(principal, "mnemonic", names[fedid])
    if not isinstance(part, Entity):
        _add(element, "role", part.name)
    if isinstance(part, Linked):
        _add(element, "linking_role", part.via)
