"""The signed envelope of all XML credentials: XML-DSig (W3C, 2nd edition) over `signed-credential/credential`.

    <signed-credential>
      <credential xml:id="ref0"> … </credential>
      <signatures> <Signature> SignedInfo  SignatureValue  KeyInfo </Signature> </signatures>
    </signed-credential>

XML-DSig lets a signature cover anything anywhere; here it covers the one `credential`, or the whole document as version 1.0 of
the Java library did. Of the document that came, nothing but what the signature covers is used, and that is parsed anew from its
canonical form; so neither a second element with the same id nor a comment inside a fedid can say something that was not
signed. Entities, document types and the network are off; size and namespaces are bounded before parsing, the depth by libxml2 (256).

The key is the one in KeyInfo: a certificate's, which then is only its envelope, or a bare RSA key. Whose it is, its fedid says.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.signer import XMLSigner
from signxml.verifier import SignatureConfiguration, XMLVerifier

from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.policy.errors import BadCredential, NotExpressible, UnusableIdentity, WeakSignature
from fedkit.policy.formats.identities import key_in, load_certificate

LIMIT = 128 * 1024  # octets
NAMESPACES_LIMIT = 64  # declarations; canonical XML takes time with the square of their number
DSIG = "http://www.w3.org/2000/09/xmldsig#"
ROOT = "signed-credential"
CREDENTIAL = "credential"
ID = "ref0"
_XML_ID = "{http://www.w3.org/XML/1998/namespace}id"
_ID_ATTRIBUTES = (_XML_ID, "Id", "ID", "id")
_WITH_ID = etree.XPath("count(//@*[. = $id][translate(local-name(), 'ID', 'id') = 'id'])")
# Java's library puts everything into the signature's namespace, GENI's schema has one of its own, libabac none.
_NAMESPACES = frozenset({None, DSIG, "http://www.geni.net/resources/credential/2"})

_ENVELOPED = DSIG + "enveloped-signature"
_EXCLUSIVE = CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0
_CANONICAL = {
    method.value for method in CanonicalizationMethod if not method.value.endswith("WithComments")
}  # one that keeps comments would let them break up a text
_METHODS = frozenset(
    {
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.ECDSA_SHA256,
    }
)
_DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
_SHA1 = frozenset({SignatureMethod.RSA_SHA1.value, DigestAlgorithm.SHA1.value})


@dataclass(frozen=True)
class Envelope:
    """What was signed, and the key that signed it."""

    credential: etree._Element
    key: PublicKey
    certificate: x509.Certificate | None


class _Verifier(XMLVerifier):
    def _c14n(self, nodes: etree._Element, algorithm: CanonicalizationMethod, *rest: Any, **options: Any) -> bytes:
        """Canonicalise an element as a document of its own, where that makes a difference.

        Of an element inside a document, lxml 6.1 repeats a default namespace on children in inclusive canonical XML; xmlsec1 does not.
        """
        if nodes.getparent() is not None and algorithm is not _EXCLUSIVE:
            nodes = self._fromstring(etree.tostring(nodes, with_tail=False))  # type: ignore[no-untyped-call]
        canonical: bytes = super()._c14n(nodes, algorithm, *rest, **options)
        return canonical


def open_envelope(data: bytes, *, allow_sha1: bool = False) -> Envelope:
    """Check the signature of a `signed-credential`; raise `BadCredential` or a kind of it, or `UnusableKey`."""
    root = _parse(data)
    signature, whole = _signature_over(root, one(root, CREDENTIAL))
    if not allow_sha1 and any(element.get("Algorithm") in _SHA1 for element in signature.iter()):
        raise WeakSignature("The signature uses SHA-1, which is accepted only where the setting for old files says so.")
    certificate, key = _signer(signature)
    config = SignatureConfiguration(
        require_x509=certificate is not None,
        location=".//",
        signature_methods=_METHODS | {SignatureMethod.RSA_SHA1},  # refused above, unless allowed
        digest_algorithms=_DIGESTS | {DigestAlgorithm.SHA1},
        verification_time=None if certificate is None else certificate.not_valid_before_utc,
        default_reference_c14n_method=CanonicalizationMethod.CANONICAL_XML_1_0,
    )
    try:
        result = _Verifier().verify(
            root, x509_cert=certificate, parser=_parser(), expect_config=config, validate_schema=False
        )
    except (SignXMLException, InvalidSignature, UnsupportedAlgorithm, ValueError, etree.LxmlError) as error:
        raise BadCredential(f"The signature does not verify: {str(error)[:200]}") from error
    if isinstance(result, list) or result.signed_xml is None:
        raise BadCredential("What is signed is not one piece of XML.")
    if result.signature_key != key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo):
        raise BadCredential("The signature was made by another key than the one it names.")
    signed = result.signed_xml
    return Envelope(one(signed, CREDENTIAL) if whole else signed, key, certificate)


def seal(credential: etree._Element, key: PrivateKey, certificate: x509.Certificate) -> bytes:
    """Sign a `credential` element as libabac does, with SHA-256; raise `NotExpressible` for a key that XML-DSig has no name for."""
    root = etree.Element(ROOT)
    credential.set(_XML_ID, ID)
    root.append(credential)
    etree.SubElement(etree.SubElement(root, "signatures"), f"{{{DSIG}}}Signature", {"Id": "placeholder"}, {None: DSIG})
    signer = XMLSigner(signature_algorithm=_method(key), c14n_algorithm=_EXCLUSIVE)
    signer.namespaces = {None: DSIG}  # type: ignore[dict-item]
    sealed = signer.sign(
        root,
        key=key.key,  # type: ignore[arg-type]
        cert=[certificate],
        reference_uri=f"#{ID}",
        always_add_key_value=isinstance(key.key, rsa.RSAPrivateKey),  # libabac takes the key from there
    )
    return etree.tostring(sealed, xml_declaration=True, encoding="UTF-8")


def many(element: etree._Element, name: str) -> list[etree._Element]:
    """Return the children called `name`, in any of the namespaces that writers use."""
    return [child for child in element.iterchildren() if _name(child) == name]


def one(element: etree._Element, name: str) -> etree._Element:
    """Return the only child called `name`; raise `BadCredential`."""
    found = many(element, name)
    if len(found) != 1:
        raise BadCredential(f"A {_name(element)} has one {name}; this one has {len(found)}.")
    return found[0]


def text_of(element: etree._Element) -> str:
    """Return the text of an element without children, blanks around it removed; raise `BadCredential`."""
    if len(element):
        raise BadCredential(f"A {_name(element)} holds text only.")
    return (element.text or "").strip()


def _parser() -> etree.XMLParser:
    """In UTF-8 whatever the text says of itself, so that what is counted in octets cannot hide in another encoding."""
    return etree.XMLParser(
        encoding="utf-8", resolve_entities=False, load_dtd=False, no_network=True, dtd_validation=False, huge_tree=False
    )


def _parse(data: bytes) -> etree._Element:
    if len(data) > LIMIT:
        raise BadCredential(f"An XML credential has at most {LIMIT} octets; this one has {len(data)}.")
    if data.count(b"xmlns") > NAMESPACES_LIMIT:
        raise BadCredential(f"An XML credential declares at most {NAMESPACES_LIMIT} namespaces.")
    try:
        root = etree.fromstring(data, _parser())
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadCredential(f"Not XML: {error}") from error
    information = root.getroottree().docinfo
    if information.internalDTD is not None or information.externalDTD is not None:
        raise BadCredential("A credential has no document type and no entities.")
    if _name(root) != ROOT:
        raise BadCredential(f"An XML credential is a {ROOT}; this is a {str(_name(root))[:40]!r}.")
    return root


def _signature_over(root: etree._Element, credential: etree._Element) -> tuple[etree._Element, bool]:
    """Find the one signature that covers `credential`, and whether it covers the whole document; remove all others.

    A delegated privilege credential brings its parents, and their signatures, along; they say nothing about this one.
    """
    own = next((value for name in _ID_ATTRIBUTES if (value := credential.get(name)) is not None), None)
    signatures = list(root.iter(f"{{{DSIG}}}Signature"))
    covering = [signature for signature in signatures if _reference(signature) in ({"", f"#{own}"} if own else {""})]
    if len(covering) != 1:
        raise BadCredential(f"The credential has {len(covering)} signatures instead of one.")
    if own and _WITH_ID(root, id=own) != 1:
        raise BadCredential("Several elements have the id of the credential.")
    for signature in signatures:
        parent = signature.getparent()
        if parent is not None and signature is not covering[0]:
            parent.remove(signature)
    _check_profile(covering[0])
    return covering[0], _reference(covering[0]) == ""


def _reference(signature: etree._Element) -> str | None:
    references = signature.findall(f"{{{DSIG}}}SignedInfo/{{{DSIG}}}Reference")
    return references[0].get("URI") if len(references) == 1 else None


def _check_profile(signature: etree._Element) -> None:
    """Refuse what no writer of credentials needs: XSLT, XPath, comments, missing or repeated parts."""
    information = _part(signature, "SignedInfo")
    for name in ("CanonicalizationMethod", "SignatureMethod"):
        _part(information, name)
    reference = _part(information, "Reference")
    for name in ("DigestMethod", "DigestValue"):
        _part(reference, name)
    _part(signature, "SignatureValue")
    if _part(information, "CanonicalizationMethod").get("Algorithm") not in _CANONICAL:
        raise BadCredential("The signature's canonical form is not one that is read here.")
    transforms = [element.get("Algorithm") for element in reference.iter(f"{{{DSIG}}}Transform")]
    canonical = [transform for transform in transforms if transform != _ENVELOPED]
    if len(transforms) > 2 or len(canonical) > 1 or not set(canonical) <= _CANONICAL:
        raise BadCredential("The signature uses a transformation that is not read here.")


def _part(element: etree._Element, name: str) -> etree._Element:
    found = element.findall(f"{{{DSIG}}}{name}")
    if len(found) != 1:
        raise BadCredential(f"The signature has {len(found)} {name} in its {_name(element)}, instead of one.")
    if name in {"DigestValue", "SignatureValue", "Modulus", "Exponent"} and not (found[0].text or "").strip():
        raise BadCredential(f"The signature's {name} is empty.")
    return found[0]


def _signer(signature: etree._Element) -> tuple[x509.Certificate | None, PublicKey]:
    """Find the key that is to have signed, and leave nothing in KeyInfo that the verifier could take for another.

    KeyInfo is not signed: anybody may have put a second key there, or nonsense. A certificate goes before a bare key; the two must not
    differ, as libabac goes by the bare one.
    """
    info = _part(signature, "KeyInfo")
    bare = info.findall(f"{{{DSIG}}}KeyValue/{{{DSIG}}}RSAKeyValue")
    numbers = {_rsa_numbers(value) for value in bare}
    certificates = info.findall(f"{{{DSIG}}}X509Data/{{{DSIG}}}X509Certificate")
    certificate = (
        certificate_in(certificates[0]) if certificates else None
    )  # its own comes first, whatever chain follows
    key = _rsa_key(numbers) if certificate is None else key_in(certificate)
    if numbers - {key.key.public_numbers() if isinstance(key.key, rsa.RSAPublicKey) else None}:
        raise BadCredential("The signature carries two keys that differ.")
    info.clear()
    if certificate is None:
        etree.SubElement(info, f"{{{DSIG}}}KeyValue").append(bare[0])
    return certificate, key


def _rsa_key(numbers: set[rsa.RSAPublicNumbers]) -> PublicKey:
    if len(numbers) != 1:
        raise BadCredential(f"The signature carries no certificate and {len(numbers)} RSA keys instead of one.")
    try:
        return PublicKey.of(next(iter(numbers)).public_key())
    except ValueError as error:
        raise BadCredential("The signature's RSA key is malformed.") from error


def _rsa_numbers(value: etree._Element) -> rsa.RSAPublicNumbers:
    modulus, exponent = (int.from_bytes(_octets(_part(value, name)), "big") for name in ("Modulus", "Exponent"))
    return rsa.RSAPublicNumbers(exponent, modulus)


def certificate_in(element: etree._Element) -> x509.Certificate:
    """Read the base64 DER certificate that is an element's text; raise `BadCredential`."""
    try:
        return load_certificate(_octets(element))
    except UnusableIdentity as error:
        raise BadCredential(f"The {_name(element)} is unusable: {error.message}") from error


def _octets(element: etree._Element) -> bytes:
    try:
        return base64.b64decode("".join(text_of(element).split()), validate=True)
    except ValueError as error:
        raise BadCredential(f"The {_name(element)} is not base64.") from error


def _method(key: PrivateKey) -> SignatureMethod:
    if isinstance(key.key, rsa.RSAPrivateKey):
        return SignatureMethod.RSA_SHA256
    if isinstance(key.key, ec.EllipticCurvePrivateKey):
        return SignatureMethod.ECDSA_SHA256
    raise NotExpressible("XML credentials are signed with RSA or P-256 keys; use the compact form or x509 for Ed25519.")


def _name(element: etree._Element) -> str | None:
    """The local name in a namespace that writers use, the whole tag in another, None for a comment."""
    return _local(element.tag) if isinstance(element.tag, str) else None


@lru_cache(maxsize=1024)
def _local(tag: str) -> str:
    name = etree.QName(tag)
    return name.localname if name.namespace in _NAMESPACES else tag
