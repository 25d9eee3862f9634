"""Whose key an XML signature is taken to be made with, and with which algorithm."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa

from fedkit.identity.keys import PrivateKey, UnusableKey
from fedkit.policy.errors import BadCredential, WeakSignature
from fedkit.policy.formats.identities import self_signed
from fedkit.policy.formats.xml_signature import DSIG
from fedkit.policy.model import Statement
from tests.unit.policy.xml_documents import (
    CERTIFICATE,
    DAY,
    EXCLUSIVE,
    KEY,
    NOW,
    OWNER,
    accept,
    der_value,
    ec_value,
    enveloped,
    rsa_value,
    x509_data,
)

ENVELOPED = DSIG + "enveloped-signature"
C14N, C14N_1_1 = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315", "http://www.w3.org/2006/12/xml-c14n11"


def old_certificate(key: PrivateKey) -> x509.Certificate:
    """Expired long ago; it is only the key's envelope."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    begin = datetime.datetime(2013, 8, 8, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.key.public_key())
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + 1080 * DAY)
    return builder.sign(key.key, hashes.SHA256())


@pytest.mark.parametrize("bare_key", [True, False])
@pytest.mark.parametrize("uri", ["", "#ref0"])
def test_old_files_need_the_setting(uri: str, bare_key: bool) -> None:
    info = f"<KeyValue>{rsa_value(KEY)}</KeyValue>{'' if bare_key else x509_data(old_certificate(KEY))}"
    data = enveloped(KEY, info, uri=uri, made="sha1")
    with pytest.raises(WeakSignature):
        accept(data)
    (credential,) = accept(data, allow_sha1=True)
    assert credential.statement == Statement.parse(f"{KEY.fedid}.delicious <- {OWNER.fedid}")
    assert accept(enveloped(KEY, info, uri=uri))[0].id == credential.id
    with pytest.raises(BadCredential):
        accept(data.replace(b"delicious", b"nutritive"), allow_sha1=True)


@pytest.mark.parametrize("canonical", [EXCLUSIVE, C14N, C14N_1_1])
def test_canonical_forms_that_writers_use(canonical: str) -> None:
    for transforms in ([], [ENVELOPED], [ENVELOPED, C14N], [C14N_1_1]):
        (credential,) = accept(enveloped(KEY, x509_data(CERTIFICATE), canonical=canonical, transforms=transforms))
        assert credential.issuer == KEY.public


@pytest.mark.parametrize(
    ("canonical", "transforms"),
    [
        (EXCLUSIVE + "WithComments", [ENVELOPED]),
        (C14N + "#WithComments", [ENVELOPED]),
        ("urn:x", [ENVELOPED]),
        (EXCLUSIVE, [ENVELOPED, C14N + "#WithComments"]),
        (EXCLUSIVE, [ENVELOPED, "http://www.w3.org/TR/1999/REC-xslt-19991116"]),
        (EXCLUSIVE, ["http://www.w3.org/TR/1999/REC-xpath-19991116"]),
        (EXCLUSIVE, [ENVELOPED, C14N, C14N]),
        (EXCLUSIVE, [ENVELOPED, ENVELOPED, C14N]),
    ],
)
def test_a_transformation_is_known_or_refused(canonical: str, transforms: list[str]) -> None:
    """Well signed, if the transformation is ignored: which a verifier must not do, as it says what was signed."""
    with pytest.raises(BadCredential):
        accept(enveloped(KEY, x509_data(CERTIFICATE), canonical=canonical, transforms=transforms))


def test_a_certificate_is_base64_and_nothing_else() -> None:
    with pytest.raises(BadCredential):
        accept(enveloped(KEY, x509_data(CERTIFICATE).replace("MII", "M!II", 1)))


def test_which_digests_are_taken() -> None:
    assert accept(enveloped(KEY, x509_data(CERTIFICATE), made="sha512"))
    with pytest.raises(BadCredential):
        accept(enveloped(KEY, x509_data(CERTIFICATE), made="sha224"), allow_sha1=True)


def test_sha1_is_for_old_rsa_files_only() -> None:
    with pytest.raises(BadCredential):
        accept(enveloped(OWNER, x509_data(self_signed(OWNER, "x", NOW)), made="sha1"), allow_sha1=True)


@pytest.mark.parametrize(
    "info",
    [
        f"<KeyValue>{rsa_value(KEY)}{ec_value(OWNER)}</KeyValue>",
        f"<KeyValue>{ec_value(OWNER)}{rsa_value(KEY)}</KeyValue>",
        f"<KeyValue>{rsa_value(KEY)}</KeyValue>{der_value(OWNER)}",
        f"<KeyValue>{rsa_value(KEY)}</KeyValue><KeyValue>{ec_value(OWNER)}</KeyValue>",
        f"{x509_data(CERTIFICATE)}<KeyValue>{ec_value(OWNER)}</KeyValue>",
        f"{x509_data(CERTIFICATE)}{der_value(OWNER)}",
        f"<KeyValue>{rsa_value(KEY)}</KeyValue>{x509_data(self_signed(OWNER, 'x', NOW))}",
        x509_data(CERTIFICATE) + x509_data(self_signed(OWNER, "x", NOW)),
        x509_data(self_signed(OWNER, "x", NOW)) + x509_data(CERTIFICATE),
    ],
)
def test_the_key_that_is_named_is_the_one_that_signed(info: str) -> None:
    """One key says whose the statement is, another made the signature; each is in KeyInfo somewhere."""
    with pytest.raises(BadCredential):
        accept(enveloped(OWNER, info))


@pytest.mark.parametrize(
    "info",
    [
        f"{x509_data(CERTIFICATE)}<KeyValue>{ec_value(OWNER, 'urn:oid:1.2')}</KeyValue>",
        f"{x509_data(CERTIFICATE)}<KeyValue>{ec_value(OWNER, point='')}</KeyValue>",
        f"{x509_data(CERTIFICATE)}<KeyValue>{ec_value(OWNER, point='AAAA')}</KeyValue>",
        f"{x509_data(CERTIFICATE)}<KeyValue/>",
        f"{x509_data(CERTIFICATE)}<dsig11:DEREncodedKeyValue/>",
        f"<KeyValue>{rsa_value(KEY)}</KeyValue><dsig11:DEREncodedKeyValue/>",
        f"{x509_data(CERTIFICATE)}<KeyValue>{rsa_value(KEY)}</KeyValue><KeyName/>",
    ],
)
def test_whatever_else_stands_in_key_info_is_no_trap(info: str) -> None:
    """It is not signed, so anybody may have put it there; at worst the credential is refused."""
    try:
        (credential,) = accept(enveloped(KEY, info))
    except BadCredential:
        return
    assert credential.issuer == KEY.public


def test_libabac_and_we_see_the_same_key() -> None:
    """libabac goes by KeyValue, we by the certificate; where they differ, nothing is accepted."""
    other = PrivateKey(rsa.generate_private_key(65537, 2048))
    with pytest.raises(BadCredential):
        accept(enveloped(KEY, f"<KeyValue>{rsa_value(other)}</KeyValue>{x509_data(CERTIFICATE)}"))


def test_keys_below_2048_bits_are_refused_even_in_old_files() -> None:
    weak = PrivateKey(rsa.generate_private_key(65537, 1024))
    for info in (f"<KeyValue>{rsa_value(weak)}</KeyValue>", x509_data(old_certificate(weak))):
        with pytest.raises(UnusableKey):
            accept(enveloped(weak, info, made="sha1"), allow_sha1=True)
