"""GENI's older credentials, of type `privilege`, as RT0: signer S gives owner O privileges on target T (libabac's C library).

    S.speaks_for_O <- O.speaks_for_O          O may let others speak
    S.speaks_for_O <- O
    S.p_T <- S.speaks_for_O                   for each privilege p
    S.p_T <- S.can_delegate_p_T.p_T           and where it can be delegated
    S.can_delegate_p_T <- O

S, O and T are the fedids of the three keys. Such credentials are only read: they are issued by GENI's authorities.
"""

from __future__ import annotations

from lxml import etree

from fedkit.policy.errors import BadCredential
from fedkit.policy.formats.identities import key_in
from fedkit.policy.formats.xml_signature import Envelope, certificate_in, many, one, text_of
from fedkit.policy.model import Entity, Linked, Role, Statement

ENCODING = "geni-privilege"
PRIVILEGES_LIMIT = 64
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def statements(envelope: Envelope) -> list[Statement]:
    """Return what a credential of type `privilege` says; raise `BadCredential`, `UnusableStatement` or `UnusableKey`."""
    credential, signer = envelope.credential, envelope.key.fedid
    owner, target = (_fedid(one(credential, name)) for name in ("owner_gid", "target_gid"))
    granted = many(one(credential, "privileges"), "privilege")
    if not 1 <= len(granted) <= PRIVILEGES_LIMIT:
        raise BadCredential(
            f"A privilege credential grants 1 to {PRIVILEGES_LIMIT} privileges; this one {len(granted)}."
        )
    spoken = Role(signer, f"speaks_for_{owner}")
    found = [Statement(spoken, (Role(owner, spoken.name),)), Statement(spoken, (Entity(owner),))]
    for privilege in granted:
        name = f"{text_of(one(privilege, 'name'))}_{target}"
        found.append(Statement(Role(signer, name), (spoken,)))
        if _delegable(privilege):
            delegable = Role(signer, f"can_delegate_{name}")
            found.append(Statement(Role(signer, name), (Linked(signer, delegable.name, name),)))
            found.append(Statement(delegable, (Entity(owner),)))
    return found


def _fedid(gid: etree._Element) -> str:
    return key_in(certificate_in(gid)).fedid


def _delegable(privilege: etree._Element) -> bool:
    text = text_of(one(privilege, "can_delegate"))
    if text not in _TRUTH:
        raise BadCredential(f"can_delegate is true or false; {text[:40]!r} is neither.")
    return _TRUTH[text]
