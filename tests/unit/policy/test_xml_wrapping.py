"""XML credentials under attack: wrapped signatures, entities, comments, foreign transformations and algorithms."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import serialization
from lxml import etree

from fedkit.policy.errors import BadCredential
from fedkit.policy.formats.identities import self_signed
from fedkit.policy.formats.xml_signature import DSIG, LIMIT, open_envelope, seal
from tests.unit.policy.xml_documents import (
    CERTIFICATE,
    DAY,
    KEY,
    NOW,
    OWNER,
    STATEMENT,
    TARGET,
    XML_ID,
    Tree,
    accept,
    credential_in,
    genuine,
    signature_in,
)


def _evil(root: Tree) -> Tree:
    """The credential, with another tail."""
    twin = copy.deepcopy(credential_in(root))
    for keyid in twin.iter("keyid"):
        keyid.text = TARGET.fedid if keyid.text == OWNER.fedid else keyid.text
    return twin


def _evil_first(root: Tree) -> None:
    root.insert(0, _evil(root))


def _evil_last(root: Tree) -> None:
    root.append(_evil(root))


def _evil_with_another_id(root: Tree) -> None:
    evil = _evil(root)
    evil.set(XML_ID, "ref1")
    root.insert(0, evil)


def _signed_one_hidden_in_the_signature(root: Tree) -> None:
    """The classic: the original moves into an Object, the forgery stands in its place."""
    evil, original = _evil(root), credential_in(root)
    root.replace(original, evil)
    evil.set(XML_ID, "ref1")
    etree.SubElement(signature_in(root), f"{{{DSIG}}}Object").append(original)


def _signed_one_hidden_in_the_forgery(root: Tree) -> None:
    evil, original = _evil(root), credential_in(root)
    evil.set(XML_ID, "ref1")
    root.replace(original, evil)
    etree.SubElement(evil, "parent").append(original)


def _same_id_hidden(root: Tree) -> None:
    evil, original = _evil(root), credential_in(root)
    root.replace(original, evil)
    etree.SubElement(signature_in(root), f"{{{DSIG}}}Object").append(original)


def _id_of_another_spelling(root: Tree) -> None:
    """Readers look for Id before xml:id; the original is found by one, the forgery stands where it is looked for."""
    evil, original = _evil(root), credential_in(root)
    root.replace(original, evil)
    del original.attrib[XML_ID]
    original.set("Id", "ref0")
    root.append(original)


def _forgery_without_id(root: Tree) -> None:
    evil, original = _evil(root), credential_in(root)
    del evil.attrib[XML_ID]
    root.replace(original, evil)
    root.append(etree.Element("elsewhere"))
    root[-1].append(original)


def _second_reference(root: Tree) -> None:
    information = signature_in(root)[0]
    information.append(copy.deepcopy(information[-1]))


def _second_signature(root: Tree) -> None:
    root.find("signatures").append(copy.deepcopy(signature_in(root)))  # type: ignore[union-attr]


def _no_signature(root: Tree) -> None:
    root.remove(root.find("signatures"))  # type: ignore[arg-type]


def _empty_signature_value(root: Tree) -> None:
    root.find(f".//{{{DSIG}}}SignatureValue").text = ""  # type: ignore[union-attr]


def _transform(algorithm: str) -> Callable[[Tree], None]:
    def change(root: Tree) -> None:
        for transforms in root.iter(f"{{{DSIG}}}Transforms"):
            etree.SubElement(transforms, f"{{{DSIG}}}Transform", Algorithm=algorithm)

    return change


def _algorithm(part: str, algorithm: str) -> Callable[[Tree], None]:
    def change(root: Tree) -> None:
        root.find(f".//{{{DSIG}}}{part}").set("Algorithm", algorithm)  # type: ignore[union-attr]

    return change


def _reference(uri: str) -> Callable[[Tree], None]:
    def change(root: Tree) -> None:
        root.find(f".//{{{DSIG}}}Reference").set("URI", uri)  # type: ignore[union-attr]

    return change


def _anothers_certificate(root: Tree) -> None:
    other = self_signed(OWNER, "Acme", NOW).public_bytes(serialization.Encoding.DER)
    root.find(f".//{{{DSIG}}}X509Certificate").text = base64.b64encode(other).decode()  # type: ignore[union-attr]


def _no_key(root: Tree) -> None:
    signature = signature_in(root)
    signature.remove(signature.find(f"{{{DSIG}}}KeyInfo"))  # type: ignore[arg-type]


def _key_name_only(root: Tree) -> None:
    info = signature_in(root).find(f"{{{DSIG}}}KeyInfo")
    assert info is not None
    for child in list(info):
        info.remove(child)
    etree.SubElement(info, f"{{{DSIG}}}KeyName").text = "Acme"


ATTACKS: list[Callable[[Tree], None]] = [
    _evil_first, _evil_last, _evil_with_another_id, _signed_one_hidden_in_the_signature, _signed_one_hidden_in_the_forgery,
    _same_id_hidden, _id_of_another_spelling, _forgery_without_id, _second_reference, _second_signature, _no_signature,
    _empty_signature_value, _anothers_certificate, _no_key, _key_name_only,
    _transform("http://www.w3.org/TR/1999/REC-xslt-19991116"), _transform("http://www.w3.org/TR/1999/REC-xpath-19991116"),
    _transform(DSIG + "base64"), _transform("http://www.w3.org/TR/2001/REC-xml-c14n-20010315#WithComments"),
    _algorithm("SignatureMethod", DSIG + "hmac-sha1"), _algorithm("SignatureMethod", "urn:none"),
    _algorithm("SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256"),
    _algorithm("DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#md5"), _algorithm("DigestMethod", ""),
    _algorithm("CanonicalizationMethod", "http://www.w3.org/2001/10/xml-exc-c14n#WithComments"),
    _reference(""), _reference("#"), _reference("#other"), _reference("file:///etc/passwd"),
    _reference("#xpointer(/)"), _reference("http://localhost/"),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_altered_envelope_is_refused(attack: Callable[[Tree], None]) -> None:
    root = etree.fromstring(genuine())
    attack(root)
    with pytest.raises(BadCredential):
        accept(etree.tostring(root))


def test_another_document_around_a_signed_credential_is_refused() -> None:
    for name in (b"credential-list", b'signed-credential xmlns="urn:x"'):
        data = genuine().replace(b"<signed-credential>", b"<" + name + b">")
        with pytest.raises(BadCredential):
            accept(data.replace(b"</signed-credential>", b"</" + name.split()[0] + b">"))


def test_an_envelope_is_bounded() -> None:
    data = genuine()
    assert open_envelope(data + b" " * (LIMIT - len(data))).key == KEY.public
    with pytest.raises(BadCredential):
        open_envelope(data + b" " * (LIMIT - len(data) + 1))


def test_what_does_not_matter_does_no_harm() -> None:
    """Blanks and comments outside of what is signed, another prefix for the namespace."""
    root = etree.fromstring(genuine())
    root.append(etree.Comment("hello"))
    root.tail = "\n"
    (credential,) = accept(b"\n" + etree.tostring(root, pretty_print=False))
    assert credential.statement == STATEMENT


def test_a_comment_inside_a_fedid_says_nothing() -> None:
    """Canonical XML drops comments, so the signature stays right; so must the reading."""
    data = genuine()
    at = data.index(OWNER.fedid.encode()) + 20
    (credential,) = accept(data[:at] + b"<!-- x -->" + data[at:])
    assert credential.statement == STATEMENT


@pytest.mark.parametrize(
    "prolog",
    [
        b'<!DOCTYPE signed-credential [<!ENTITY a "b">]>',
        b'<!DOCTYPE signed-credential SYSTEM "http://localhost/x.dtd">',
        b'<!DOCTYPE signed-credential [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        b'<!DOCTYPE signed-credential [<!ENTITY a "aaaaaaaaaa">'
        + b"".join(b'<!ENTITY %c "%s">' % (c, b"&%c;" % (c - 1) * 10) for c in range(ord("b"), ord("z")))
        + b"]>",
    ],
)
def test_document_types_and_entities_are_refused(prolog: bytes) -> None:
    data = genuine()
    at = data.index(b"<signed-credential")
    for body in (data[at:], data[at:].replace(b"<type>abac", b"<type>&a;&y;abac")):
        with pytest.raises(BadCredential):
            accept(data[:at] + prolog + body)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "cp037"])
def test_namespaces_that_nobody_needs_are_refused_unread(encoding: str) -> None:
    """Inclusive canonical XML takes time with the square of their number: 14 seconds for 185 KiB."""
    names = " ".join(f'xmlns:a{number}="urn:{number}"' for number in range(100))
    text = genuine().decode().replace("<signed-credential>", f"<signed-credential {names}>")
    with pytest.raises(BadCredential) as caught:
        accept(text.replace("UTF-8", encoding).encode(encoding))
    assert "signature" not in caught.value.message


def test_an_entity_without_a_document_type_is_refused() -> None:
    with pytest.raises(BadCredential):
        accept(genuine().replace(b"<type>abac", b"<type>&a;abac"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<type>abac</type>", b"<type>ticket</type>"),
        (b"<type>abac</type>", b""),
        (b"<version>1.1</version>", b"<version>2.0</version>"),
        (b"</head>", b"</head><head/>"),
        (b"<role>a</role>", b""),
        (b"<role>a</role>", b"<role>a.b</role>"),
        (b"<role>a</role>", b"<role>a<b/></role>"),
        (b"<role>a</role>", b"<linking_role>a</linking_role>"),
        (b"</ABACprincipal></tail>", b"</ABACprincipal><linking_role>b</linking_role></tail>"),
        (b"<serial/>", b"<expires>2030-01-01T00:00:00Z</expires>"),
        (b"2026-11-23T12:00:00Z", b"tomorrow"),
        (b"2026-11-23T12:00:00Z", b"9999-12-31T23:59:59-23:00"),
        (b"2026-11-23T12:00:00Z", b""),
    ],
)
def test_a_well_signed_nonsense_is_refused(old: bytes, new: bytes) -> None:
    element = etree.fromstring(etree.tostring(credential_in(etree.fromstring(genuine()))).replace(old, new))
    with pytest.raises(BadCredential):
        accept(seal(element, KEY, CERTIFICATE))


@pytest.mark.parametrize(
    "expires", ["2026-11-23T12:00:00Z", "2026-11-23T12:00:00", "2026-11-23T13:00:00+01:00", "20261123T120000Z"]
)
def test_iso_8601_in_its_spellings(expires: str) -> None:
    text = etree.tostring(credential_in(etree.fromstring(genuine()))).replace(b"2026-11-23T12:00:00Z", expires.encode())
    (credential,) = accept(seal(etree.fromstring(text), KEY, CERTIFICATE))
    assert credential.expires == NOW + DAY


@pytest.mark.parametrize("namespace", [DSIG, "http://www.geni.net/resources/credential/2"])
def test_namespaces_of_other_writers(namespace: str) -> None:
    text = etree.tostring(credential_in(etree.fromstring(genuine()))).replace(
        b"<credential", f'<credential xmlns="{namespace}"'.encode()
    )
    (credential,) = accept(seal(etree.fromstring(text), KEY, CERTIFICATE))
    assert credential.statement == STATEMENT


def test_a_foreign_namespace_is_not_read() -> None:
    text = etree.tostring(credential_in(etree.fromstring(genuine()))).replace(b"<abac>", b'<abac xmlns="urn:x">')
    with pytest.raises(BadCredential):
        accept(seal(etree.fromstring(text), KEY, CERTIFICATE))
