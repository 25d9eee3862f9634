"""XML credentials under attack: wrapped signatures, entities, comments, other transformations, old algorithms."""

from __future__ import annotations

import base64
import copy
import datetime
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from lxml import etree

from fedkit.identity.keys import PrivateKey, UnusableKey
from fedkit.policy.errors import BadCredential, NotSpeakingFor, WeakSignature
from fedkit.policy.formats import Form, read, speaks_for, write
from fedkit.policy.formats.identities import Identities, self_signed
from fedkit.policy.formats.xml_signature import DSIG, seal
from fedkit.policy.model import Credential, Statement

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
KEY = PrivateKey(rsa.generate_private_key(65537, 2048))
OWNER, TARGET = PrivateKey.generate("p256"), PrivateKey.generate("p256")
CERTIFICATE = self_signed(KEY, "Acme", NOW)
STATEMENT = Statement.parse(f"{KEY.fedid}.a <- {OWNER.fedid}")
EVIL = f"{KEY.fedid}.a <- {TARGET.fedid}"
C14N, EXCLUSIVE = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "http://www.w3.org/2001/10/xml-exc-c14n#"

Tree = etree._Element


def genuine(form: Form = Form.GENI_1_1) -> bytes:
    """A credential that is accepted."""
    return write(form, KEY, STATEMENT, NOW + DAY, certificate=CERTIFICATE)


def accept(data: bytes, allow_sha1: bool = False) -> list[Credential]:
    """Read as from a stranger."""
    return read(data, identities=Identities(), allow_sha1=allow_sha1)


def _credential(root: Tree) -> Tree:
    return root.find("credential")  # type: ignore[return-value]


def _signature(root: Tree) -> Tree:
    return root.find(f".//{{{DSIG}}}Signature")  # type: ignore[return-value]


def _evil(root: Tree) -> Tree:
    """The credential, with another tail."""
    twin = copy.deepcopy(_credential(root))
    for keyid in twin.iter("keyid"):
        keyid.text = TARGET.fedid if keyid.text == OWNER.fedid else keyid.text
    return twin


def _evil_first(root: Tree) -> None:
    root.insert(0, _evil(root))


def _evil_last(root: Tree) -> None:
    root.append(_evil(root))


def _evil_with_another_id(root: Tree) -> None:
    evil = _evil(root)
    evil.set("{http://www.w3.org/XML/1998/namespace}id", "ref1")
    root.insert(0, evil)


def _signed_one_hidden_in_the_signature(root: Tree) -> None:
    """The classic: the original moves into an Object, the forgery stands in its place."""
    evil, original = _evil(root), _credential(root)
    root.replace(original, evil)
    evil.set("{http://www.w3.org/XML/1998/namespace}id", "ref1")
    etree.SubElement(_signature(root), f"{{{DSIG}}}Object").append(original)


def _signed_one_hidden_in_the_forgery(root: Tree) -> None:
    evil, original = _evil(root), _credential(root)
    evil.set("{http://www.w3.org/XML/1998/namespace}id", "ref1")
    root.replace(original, evil)
    etree.SubElement(evil, "parent").append(original)


def _same_id_hidden(root: Tree) -> None:
    evil, original = _evil(root), _credential(root)
    root.replace(original, evil)
    etree.SubElement(_signature(root), f"{{{DSIG}}}Object").append(original)


def _id_of_another_spelling(root: Tree) -> None:
    """Readers look for Id before xml:id; the original is found by one, the forgery stands where it is looked for."""
    evil, original = _evil(root), _credential(root)
    root.replace(original, evil)
    del original.attrib["{http://www.w3.org/XML/1998/namespace}id"]
    original.set("Id", "ref0")
    root.append(original)


def _forgery_without_id(root: Tree) -> None:
    evil, original = _evil(root), _credential(root)
    del evil.attrib["{http://www.w3.org/XML/1998/namespace}id"]
    root.replace(original, evil)
    root.append(etree.Element("elsewhere"))
    root[-1].append(original)


def _second_reference(root: Tree) -> None:
    information = _signature(root)[0]
    information.append(copy.deepcopy(information[-1]))


def _second_signature(root: Tree) -> None:
    root.find("signatures").append(copy.deepcopy(_signature(root)))  # type: ignore[union-attr]


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
    signature = _signature(root)
    signature.remove(signature.find(f"{{{DSIG}}}KeyInfo"))  # type: ignore[arg-type]


def _key_name_only(root: Tree) -> None:
    info = _signature(root).find(f"{{{DSIG}}}KeyInfo")
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
        (b"<serial/>", b"<expires>2030-01-01T00:00:00Z</expires>"),
        (b"2026-11-23T12:00:00Z", b"tomorrow"),
        (b"2026-11-23T12:00:00Z", b"9999-12-31T23:59:59-23:00"),
        (b"2026-11-23T12:00:00Z", b""),
    ],
)
def test_a_well_signed_nonsense_is_refused(old: bytes, new: bytes) -> None:
    element = etree.fromstring(etree.tostring(_credential(etree.fromstring(genuine()))).replace(old, new))
    with pytest.raises(BadCredential):
        accept(seal(element, KEY, CERTIFICATE))


@pytest.mark.parametrize(
    "expires", ["2026-11-23T12:00:00Z", "2026-11-23T12:00:00", "2026-11-23T13:00:00+01:00", "20261123T120000Z"]
)
def test_iso_8601_in_its_spellings(expires: str) -> None:
    text = etree.tostring(_credential(etree.fromstring(genuine()))).replace(b"2026-11-23T12:00:00Z", expires.encode())
    (credential,) = accept(seal(etree.fromstring(text), KEY, CERTIFICATE))
    assert credential.expires == NOW + DAY


@pytest.mark.parametrize("namespace", [DSIG, "http://www.geni.net/resources/credential/2"])
def test_namespaces_of_other_writers(namespace: str) -> None:
    text = etree.tostring(_credential(etree.fromstring(genuine()))).replace(
        b"<credential", f'<credential xmlns="{namespace}"'.encode()
    )
    (credential,) = accept(seal(etree.fromstring(text), KEY, CERTIFICATE))
    assert credential.statement == STATEMENT


def test_a_foreign_namespace_is_not_read() -> None:
    text = etree.tostring(_credential(etree.fromstring(genuine()))).replace(b"<abac>", b'<abac xmlns="urn:x">')
    with pytest.raises(BadCredential):
        accept(seal(etree.fromstring(text), KEY, CERTIFICATE))


def old_style(
    key: rsa.RSAPrivateKey, body: bytes, uri: str = "#ref0", algorithm: str = "sha1", bare_key: bool = False
) -> bytes:
    """Sign as libabac 0.1.4 and the Java library did: SHA-1, no transformation but "enveloped", KeyInfo with a bare key or a chain."""
    method = {"sha1": DSIG + "rsa-sha1", "sha256": "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"}[algorithm]
    digest = {"sha1": DSIG + "sha1", "sha256": "http://www.w3.org/2001/04/xmlenc#sha256"}[algorithm]
    made = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}[algorithm]
    document = etree.fromstring(b"<signed-credential>" + body + b"<signatures/></signed-credential>")
    covered = document if uri == "" else document[0]
    hashed = hashes.Hash(made)
    hashed.update(etree.tostring(covered, method="c14n"))
    information = (
        f'<SignedInfo xmlns="{DSIG}"><CanonicalizationMethod Algorithm="{EXCLUSIVE}"/><SignatureMethod Algorithm="{method}"/>'
        f'<Reference URI="{uri}"><Transforms><Transform Algorithm="{DSIG}enveloped-signature"/></Transforms>'
        f'<DigestMethod Algorithm="{digest}"/><DigestValue>{base64.b64encode(hashed.finalize()).decode()}</DigestValue>'
        "</Reference></SignedInfo>"
    )
    canonical = etree.tostring(etree.fromstring(information), method="c14n", exclusive=True)
    value = base64.b64encode(key.sign(canonical, padding.PKCS1v15(), made)).decode()
    numbers = key.public_key().public_numbers()
    modulus = base64.b64encode(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big")).decode()
    info = f"<KeyValue><RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>AQAB</Exponent></RSAKeyValue></KeyValue>"
    if not bare_key:
        der = base64.b64encode(_certificate_of(key).public_bytes(serialization.Encoding.DER)).decode()
        info += f"<X509Data><X509Certificate>{der}</X509Certificate></X509Data>"
    signature = f'<Signature xmlns="{DSIG}">{information}<SignatureValue>{value}</SignatureValue><KeyInfo>{info}</KeyInfo></Signature>'
    document[1].append(etree.fromstring(signature))
    return etree.tostring(document, xml_declaration=True, encoding="UTF-8")


def _certificate_of(key: rsa.RSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    begin = datetime.datetime(2013, 8, 8, tzinfo=datetime.UTC)  # expired long ago: it is only the key's envelope
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    )
    return builder.not_valid_before(begin).not_valid_after(begin + 1080 * DAY).sign(key, hashes.SHA256())


V1_0 = (
    f'<credential xml:id="ref0">\n\t<type>abac</type>\n\t<version>1.0</version>\n\t<expires>2034-06-01T18:55:30Z</expires>'
    f"\n\t<rt0>{KEY.fedid}.delicious&lt;-{OWNER.fedid}</rt0>\n    </credential>"
).encode()


@pytest.mark.parametrize("bare_key", [True, False])
@pytest.mark.parametrize("uri", ["", "#ref0"])
def test_old_files_need_the_setting(uri: str, bare_key: bool) -> None:
    assert isinstance(KEY.key, rsa.RSAPrivateKey)
    data = old_style(KEY.key, V1_0, uri, bare_key=bare_key)
    with pytest.raises(WeakSignature):
        accept(data)
    (credential,) = accept(data, allow_sha1=True)
    assert credential.statement == Statement.parse(f"{KEY.fedid}.delicious <- {OWNER.fedid}")
    assert accept(old_style(KEY.key, V1_0, uri, "sha256", bare_key))[0].id == credential.id
    with pytest.raises(BadCredential):
        accept(data.replace(b"delicious", b"nutritive"), allow_sha1=True)


def _signed_with(key: PrivateKey, algorithm: str, info: str) -> bytes:
    """Version 1.0, about KEY's role, signed by `key`, with whatever `info` says of the key."""
    document = etree.fromstring(b"<signed-credential>" + V1_0 + b"<signatures/></signed-credential>")
    hashed = hashes.Hash(hashes.SHA256())
    hashed.update(etree.tostring(document[0], method="c14n"))
    information = etree.fromstring(
        f'<SignedInfo xmlns="{DSIG}"><CanonicalizationMethod Algorithm="{EXCLUSIVE}"/><SignatureMethod Algorithm="{algorithm}"/>'
        '<Reference URI="#ref0"><DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/>'
        f"<DigestValue>{base64.b64encode(hashed.finalize()).decode()}</DigestValue></Reference></SignedInfo>"
    )
    canonical = etree.tostring(information, method="c14n", exclusive=True)
    value = key.sign(canonical) if key is not KEY else KEY.key.sign(canonical, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr,call-arg,arg-type]
    signature = etree.SubElement(document[1], f"{{{DSIG}}}Signature", nsmap={None: DSIG})
    signature.append(information)
    etree.SubElement(signature, f"{{{DSIG}}}SignatureValue").text = base64.b64encode(value).decode()
    signature.append(
        etree.fromstring(f'<KeyInfo xmlns="{DSIG}" xmlns:dsig11="http://www.w3.org/2009/xmldsig11#">{info}</KeyInfo>')
    )
    return etree.tostring(document)


def _rsa_value(key: PrivateKey) -> str:
    numbers = key.public.key.public_numbers()  # type: ignore[union-attr]
    modulus = base64.b64encode(numbers.n.to_bytes(256, "big")).decode()  # type: ignore[union-attr]
    return f"<RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>AQAB</Exponent></RSAKeyValue>"


def _ec_value(key: PrivateKey, curve: str = "urn:oid:1.2.840.10045.3.1.7", point: str | None = None) -> str:
    octets = key.public.key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    point = base64.b64encode(octets).decode() if point is None else point
    return f'<dsig11:ECKeyValue><dsig11:NamedCurve URI="{curve}"/><dsig11:PublicKey>{point}</dsig11:PublicKey></dsig11:ECKeyValue>'


def _der_value(key: PrivateKey) -> str:
    return f"<dsig11:DEREncodedKeyValue>{base64.b64encode(key.public.spki).decode()}</dsig11:DEREncodedKeyValue>"


def _x509_data(certificate: x509.Certificate) -> str:
    der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    return f"<X509Data><X509Certificate>{der}</X509Certificate></X509Data>"


ECDSA, RSA_SHA256 = (f"http://www.w3.org/2001/04/xmldsig-more#{name}-sha256" for name in ("ecdsa", "rsa"))


@pytest.mark.parametrize(
    "info",
    [
        f"<KeyValue>{_rsa_value(KEY)}{_ec_value(OWNER)}</KeyValue>",
        f"<KeyValue>{_ec_value(OWNER)}{_rsa_value(KEY)}</KeyValue>",
        f"<KeyValue>{_rsa_value(KEY)}</KeyValue>{_der_value(OWNER)}",
        f"<KeyValue>{_rsa_value(KEY)}</KeyValue><KeyValue>{_ec_value(OWNER)}</KeyValue>",
        f"{_x509_data(CERTIFICATE)}<KeyValue>{_ec_value(OWNER)}</KeyValue>",
        f"{_x509_data(CERTIFICATE)}{_der_value(OWNER)}",
        f"<KeyValue>{_rsa_value(KEY)}</KeyValue>{_x509_data(self_signed(OWNER, 'x', NOW))}",
        _x509_data(CERTIFICATE) + _x509_data(self_signed(OWNER, "x", NOW)),
        _x509_data(self_signed(OWNER, "x", NOW)) + _x509_data(CERTIFICATE),
    ],
)
def test_the_key_that_is_named_is_the_one_that_signed(info: str) -> None:
    """One key says whose the statement is, another made the signature; each is in KeyInfo somewhere."""
    with pytest.raises(BadCredential):
        accept(_signed_with(OWNER, ECDSA, info))


@pytest.mark.parametrize(
    "info",
    [
        f"{_x509_data(CERTIFICATE)}<KeyValue>{_ec_value(OWNER, 'urn:oid:1.2')}</KeyValue>",
        f"{_x509_data(CERTIFICATE)}<KeyValue>{_ec_value(OWNER, point='')}</KeyValue>",
        f"{_x509_data(CERTIFICATE)}<KeyValue>{_ec_value(OWNER, point='AAAA')}</KeyValue>",
        f"{_x509_data(CERTIFICATE)}<KeyValue/>",
        f"{_x509_data(CERTIFICATE)}<dsig11:DEREncodedKeyValue/>",
        f"<KeyValue>{_rsa_value(KEY)}</KeyValue><dsig11:DEREncodedKeyValue/>",
        f"{_x509_data(CERTIFICATE)}<KeyValue>{_rsa_value(KEY)}</KeyValue><KeyName/>",
    ],
)
def test_whatever_else_stands_in_key_info_is_no_trap(info: str) -> None:
    """It is not signed, so anybody may have put it there; at worst the credential is refused."""
    try:
        (credential,) = accept(_signed_with(KEY, RSA_SHA256, info))
    except BadCredential:
        return
    assert credential.issuer == KEY.public


def test_libabac_and_we_see_the_same_key() -> None:
    """libabac goes by KeyValue, we by the certificate; where they differ, nothing is accepted."""
    other = PrivateKey(rsa.generate_private_key(65537, 2048))
    with pytest.raises(BadCredential):
        accept(_signed_with(KEY, RSA_SHA256, f"<KeyValue>{_rsa_value(other)}</KeyValue>{_x509_data(CERTIFICATE)}"))


def test_keys_below_2048_bits_are_refused_even_in_old_files() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    for bare_key in (True, False):
        with pytest.raises(UnusableKey):
            accept(old_style(weak, V1_0, bare_key=bare_key), allow_sha1=True)


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
    _credential(grandparent).set("{http://www.w3.org/XML/1998/namespace}id", "ref1")
    etree.SubElement(body, "parent").append(_credential(grandparent))
    root = etree.fromstring(seal(body, KEY, CERTIFICATE))
    other = _signature(grandparent)
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


def test_an_expired_right_to_speak() -> None:
    with pytest.raises(BadCredential):
        speaks_for.read(_speaks_for(), tool=TOOL.fedid, urn=URN, trusts=lambda _: True, at=NOW + DAY)
