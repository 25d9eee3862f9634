"""XML credentials as tests make them: genuine ones, and envelopes with whatever in them, signed by hand.

The signing here shares nothing with ours: the parts are put together as text, as libabac 0.1.4 and the Java library had them.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from lxml import etree

from fedkit.identity.keys import PrivateKey
from fedkit.policy.formats import Form, read, write
from fedkit.policy.formats.identities import Identities, self_signed
from fedkit.policy.formats.xml_signature import DSIG
from fedkit.policy.model import Credential, Statement

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
KEY = PrivateKey(rsa.generate_private_key(65537, 2048))
OWNER, TARGET = PrivateKey.generate("p256"), PrivateKey.generate("p256")
CERTIFICATE = self_signed(KEY, "Acme", NOW)
STATEMENT = Statement.parse(f"{KEY.fedid}.a <- {OWNER.fedid}")
XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_MORE = "http://www.w3.org/2001/04/xmldsig-more#"

_DIGESTS: Mapping[str, tuple[hashes.HashAlgorithm, str]] = {
    "sha1": (hashes.SHA1(), DSIG + "sha1"),
    "sha224": (hashes.SHA224(), _MORE + "sha224"),
    "sha256": (hashes.SHA256(), "http://www.w3.org/2001/04/xmlenc#sha256"),
    "sha512": (hashes.SHA512(), "http://www.w3.org/2001/04/xmlenc#sha512"),
}

Tree = etree._Element

V1_0 = (
    f'<credential xml:id="ref0">\n\t<type>abac</type>\n\t<version>1.0</version>\n\t<expires>2034-06-01T18:55:30Z</expires>'
    f"\n\t<rt0>{KEY.fedid}.delicious&lt;-{OWNER.fedid}</rt0>\n    </credential>"
).encode()


def genuine(form: Form = Form.GENI_1_1) -> bytes:
    """A credential that is accepted."""
    return write(form, KEY, STATEMENT, NOW + DAY, certificate=CERTIFICATE)


def accept(data: bytes, allow_sha1: bool = False) -> list[Credential]:
    """Read as from a stranger."""
    return read(data, identities=Identities(), allow_sha1=allow_sha1)


def credential_in(root: Tree) -> Tree:
    """The `credential` of a document."""
    found = root.find("credential")
    assert found is not None
    return found


def signature_in(root: Tree) -> Tree:
    """The first `Signature` of a document."""
    found = root.find(f".//{{{DSIG}}}Signature")
    assert found is not None
    return found


def enveloped(
    key: PrivateKey,
    info: str,
    *,
    uri: str = "#ref0",
    made: str = "sha256",
    canonical: str = EXCLUSIVE,
    transforms: Sequence[str] = (DSIG + "enveloped-signature",),
) -> bytes:
    """`V1_0` signed by `key`, with `info` in KeyInfo; no transformation but "enveloped", so that canonical XML 1.0 applies."""
    document = etree.fromstring(b"<signed-credential>" + V1_0 + b"<signatures/></signed-credential>")
    hashing, digest = _DIGESTS[made]
    hashed = hashes.Hash(hashing)
    hashed.update(etree.tostring(document if uri == "" else document[0], method="c14n"))
    chain = "".join(f'<Transform Algorithm="{transform}"/>' for transform in transforms)
    information = (
        f'<SignedInfo xmlns="{DSIG}"><CanonicalizationMethod Algorithm="{canonical}"/><SignatureMethod Algorithm="{_method(key, made)}"/>'
        f'<Reference URI="{uri}"><Transforms>{chain}</Transforms>'
        f'<DigestMethod Algorithm="{digest}"/><DigestValue>{base64.b64encode(hashed.finalize()).decode()}</DigestValue>'
        "</Reference></SignedInfo>"
    )
    if canonical.startswith(EXCLUSIVE):
        signed = etree.tostring(etree.fromstring(information), method="c14n", exclusive=True)
    else:  # which carries in what is declared around it
        around = information.replace("<SignedInfo", '<SignedInfo xmlns:dsig11="http://www.w3.org/2009/xmldsig11#"', 1)
        signed = etree.tostring(etree.fromstring(around), method="c14n")
    value = _sign(key, signed, hashing)
    signature = (
        f'<Signature xmlns="{DSIG}" xmlns:dsig11="http://www.w3.org/2009/xmldsig11#">{information}'
        f"<SignatureValue>{base64.b64encode(value).decode()}</SignatureValue><KeyInfo>{info}</KeyInfo></Signature>"
    )
    document[1].append(etree.fromstring(signature))
    return etree.tostring(document, xml_declaration=True, encoding="UTF-8")


def rsa_value(key: PrivateKey) -> str:
    """A bare RSA key, for KeyValue."""
    assert isinstance(key.key, rsa.RSAPrivateKey)
    numbers = key.key.public_key().public_numbers()
    modulus = base64.b64encode(numbers.n.to_bytes(key.key.key_size // 8, "big")).decode()
    return f"<RSAKeyValue><Modulus>{modulus}</Modulus><Exponent>AQAB</Exponent></RSAKeyValue>"


def ec_value(key: PrivateKey, curve: str = "urn:oid:1.2.840.10045.3.1.7", point: str | None = None) -> str:
    """A bare P-256 key, for KeyValue."""
    octets = key.public.key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    point = base64.b64encode(octets).decode() if point is None else point
    return f'<dsig11:ECKeyValue><dsig11:NamedCurve URI="{curve}"/><dsig11:PublicKey>{point}</dsig11:PublicKey></dsig11:ECKeyValue>'


def der_value(key: PrivateKey) -> str:
    """A key in DER, for KeyInfo."""
    return f"<dsig11:DEREncodedKeyValue>{base64.b64encode(key.public.spki).decode()}</dsig11:DEREncodedKeyValue>"


def x509_data(certificate: x509.Certificate) -> str:
    """A certificate, for KeyInfo."""
    der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    return f"<X509Data><X509Certificate>{der}</X509Certificate></X509Data>"


def _method(key: PrivateKey, made: str) -> str:
    kind = "rsa" if isinstance(key.key, rsa.RSAPrivateKey) else "ecdsa"
    return f"{DSIG if (kind, made) == ('rsa', 'sha1') else _MORE}{kind}-{made}"


def _sign(key: PrivateKey, message: bytes, hashing: hashes.HashAlgorithm) -> bytes:
    if isinstance(key.key, rsa.RSAPrivateKey):
        return key.key.sign(message, padding.PKCS1v15(), hashing)
    assert isinstance(key.key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.key.sign(message, ec.ECDSA(hashing)))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")
