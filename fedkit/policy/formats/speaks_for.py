"""GENI's "speaks for": a user lets a tool act in their name, by one ABAC statement (GENI AM API, geni_speaking_for).

    U.speaks_for_U <- Tool          signed by U, whose certificate comes along in the signature

Whoever relies on it knows the caller (the tool, by its key) and the URN it claims to speak for. That URN must stand in U's certificate,
and the certificate itself must be one that is trusted to name its owner: here it is more than an envelope.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509

from fedkit.policy.errors import NotSpeakingFor
from fedkit.policy.formats import check_term, geni
from fedkit.policy.formats.identities import Identities
from fedkit.policy.formats.xml_signature import open_envelope
from fedkit.policy.model import Credential, Entity, Role, Statement

URN_PREFIX = "urn:publicid:IDN+"


@dataclass(frozen=True)
class SpeaksFor:
    """A user for whom the tool may act, until the credential expires."""

    urn: str
    certificate: x509.Certificate
    credential: Credential

    @property
    def user(self) -> str:
        """The user's fedid."""
        return self.credential.issuer.fedid


def read(
    data: bytes,
    *,
    tool: str,
    urn: str,
    trusts: Callable[[x509.Certificate], bool],
    at: datetime.datetime,
    allow_sha1: bool = False,
) -> SpeaksFor:
    """Check that the holder of fedid `tool` may speak for the user named `urn`.

    `trusts` says whether a user certificate comes from an authority that is relied on. Raises `NotSpeakingFor`, or `BadCredential`
    and its kinds for a credential that nobody could use.
    """
    envelope = open_envelope(data, allow_sha1=allow_sha1)
    credentials = geni.interpret(envelope, data, Identities())
    credential, user = credentials[0], envelope.key.fedid
    expected = Statement(Role(user, f"speaks_for_{user}"), (Entity(tool),))
    if credential.encoding != geni.Version.V1_1 or credential.statement != expected:
        raise NotSpeakingFor(f"The credential does not say {expected}.", user=user, tool=tool)
    check_term(credential, at)
    if envelope.certificate is None:
        raise NotSpeakingFor("The credential does not carry the user's certificate.", user=user)
    if urn not in urns(envelope.certificate):
        raise NotSpeakingFor(f"The user's certificate does not name {urn[:200]!r}.", user=user)
    if not trusts(envelope.certificate):
        raise NotSpeakingFor("The user's certificate is by nobody who is trusted here.", user=user)
    return SpeaksFor(urn, envelope.certificate, credential)


def urns(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the GENI names in a certificate's subjectAltName."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return ()
    return tuple(name for name in found if name.startswith(URN_PREFIX))
