"""GENI's own credentials: privileges, read as rules, and the right to speak for somebody."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from lxml import etree

from fedkit.identity.keys import PrivateKey
from fedkit.policy.errors import BadCredential, NotSpeakingFor
from fedkit.policy.formats import Form, speaks_for, write
from fedkit.policy.formats.identities import self_signed
from fedkit.policy.formats.xml_signature import DSIG, seal
from fedkit.policy.model import Statement
from tests.unit.policy.xml_documents import (
    CERTIFICATE,
    DAY,
    KEY,
    NOW,
    OWNER,
    TARGET,
    XML_ID,
    accept,
    credential_in,
    signature_in,
)


def _privilege(privileges: str, owner: PrivateKey = OWNER) -> bytes:
    gids = [
        base64.b64encode(self_signed(key, "x", NOW).public_bytes(serialization.Encoding.DER)).decode()
        for key in (owner, TARGET)
    ]
    return (
        f'<credential xml:id="ref0"><type>privilege</type><serial>1</serial><owner_gid>{gids[0]}</owner_gid>'
        f"<owner_urn>urn:publicid:IDN+x+user+o</owner_urn><target_gid>{gids[1]}</target_gid><target_urn>urn:x</target_urn><uuid/>"
        f"<expires>2030-07-17T00:00:00Z</expires><privileges>{privileges}</privileges></credential>"
    ).encode()


def _grant(name: str, delegate: str) -> str:
    return f"<privilege><name>{name}</name><can_delegate>{delegate}</can_delegate></privilege>"


def test_privileges_are_six_rules() -> None:
    """What libabac's C library makes of one privilege that cannot be delegated and one that can."""
    body = _privilege(_grant("refresh", "false") + _grant("test2", "1"))
    found = {str(credential.statement) for credential in accept(seal(etree.fromstring(body), KEY, CERTIFICATE))}
    signer, owner, target = KEY.fedid, OWNER.fedid, TARGET.fedid
    assert found == {
        f"{signer}.speaks_for_{owner} <- {owner}.speaks_for_{owner}",
        f"{signer}.speaks_for_{owner} <- {owner}",
        f"{signer}.refresh_{target} <- {signer}.speaks_for_{owner}",
        f"{signer}.test2_{target} <- {signer}.speaks_for_{owner}",
        f"{signer}.test2_{target} <- {signer}.can_delegate_test2_{target}.test2_{target}",
        f"{signer}.can_delegate_test2_{target} <- {owner}",
    }


def test_a_delegated_privilege_brings_its_parents_along() -> None:
    """They and their signatures are not looked at."""
    parent = seal(etree.fromstring(_privilege(_grant("info", "1"))), OWNER, self_signed(OWNER, "o", NOW))
    body = etree.fromstring(_privilege(_grant("info", "0")))
    grandparent = etree.fromstring(parent)
    credential_in(grandparent).set(XML_ID, "ref1")
    etree.SubElement(body, "parent").append(credential_in(grandparent))
    root = etree.fromstring(seal(body, KEY, CERTIFICATE))
    other = signature_in(grandparent)
    other.find(f".//{{{DSIG}}}Reference").set("URI", "#ref1")  # type: ignore[union-attr]
    root.find("signatures").insert(0, other)  # type: ignore[union-attr]
    assert len(accept(etree.tostring(root))) == 3


@pytest.mark.parametrize(
    "privileges",
    ["", _grant("*", "1"), _grant("a", "perhaps"), "<privilege><name>a</name></privilege>", _grant("a", "1") * 65],
)
def test_unusable_privileges(privileges: str) -> None:
    with pytest.raises(BadCredential):
        accept(seal(etree.fromstring(_privilege(privileges)), KEY, CERTIFICATE))


URN = "urn:publicid:IDN+site.example+user+alice"
TOOL = PrivateKey.generate("p256")


def _user_certificate(*names: str) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(KEY.public.key)
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + DAY)
    alternative = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names])
    return builder.add_extension(alternative, critical=False).sign(KEY.key, hashes.SHA256())


def _speaks_for(
    text: str = f"{KEY.fedid}.speaks_for_{KEY.fedid} <- {TOOL.fedid}", form: Form = Form.GENI_1_1, urn: str = URN
) -> bytes:
    return write(form, KEY, Statement.parse(text), NOW + DAY, certificate=_user_certificate("urn:uuid:x", urn))


def _check(data: bytes, tool: str = TOOL.fedid, urn: str = URN, trusted: bool = True) -> speaks_for.SpeaksFor:
    return speaks_for.read(data, tool=tool, urn=urn, trusts=lambda _: trusted, at=NOW)


def test_a_tool_speaks_for_a_user() -> None:
    spoken = _check(_speaks_for())
    assert (spoken.user, spoken.urn) == (KEY.fedid, URN)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: _check(_speaks_for(), tool=OWNER.fedid),
        lambda: _check(_speaks_for(), urn="urn:publicid:IDN+site.example+user+bob"),
        lambda: _check(_speaks_for(), urn="urn:uuid:x"),
        lambda: _check(_speaks_for(), trusted=False),
        lambda: _check(_speaks_for(form=Form.GENI_1_0)),
        lambda: _check(_speaks_for(f"{KEY.fedid}.speaks_for_{KEY.fedid} <- {TOOL.fedid} & {TOOL.fedid}")),
        lambda: _check(_speaks_for(f"{KEY.fedid}.speaks_for_{KEY.fedid} <- {TOOL.fedid}.a")),
        lambda: _check(_speaks_for(f"{KEY.fedid}.speaks_for_{OWNER.fedid} <- {TOOL.fedid}")),
    ],
)
def test_nobody_else_speaks_for_them(attempt: Callable[[], object]) -> None:
    with pytest.raises(NotSpeakingFor):
        attempt()


def test_a_bare_key_speaks_for_nobody_with_a_name() -> None:
    root = etree.fromstring(_speaks_for())
    data = next(root.iter(f"{{{DSIG}}}X509Data"))
    data.getparent().remove(data)  # type: ignore[union-attr]
    with pytest.raises(NotSpeakingFor):
        _check(etree.tostring(root))


def test_a_certificate_with_unreadable_names_has_none() -> None:
    odd = x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Acme")]))
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(KEY.public.key)
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + DAY)
    made = builder.add_extension(x509.SubjectAlternativeName([odd]), critical=False).sign(KEY.key, hashes.SHA256())
    der = made.public_bytes(serialization.Encoding.DER).replace(b"\x0c\x04Acme", b"\x03\x04\x00cme")
    assert speaks_for.urns(x509.load_der_x509_certificate(der)) == ()
    assert speaks_for.urns(CERTIFICATE) == ()


def test_an_expired_right_to_speak() -> None:
    with pytest.raises(BadCredential):
        speaks_for.read(_speaks_for(), tool=TOOL.fedid, urn=URN, trusts=lambda _: True, at=NOW + DAY)
