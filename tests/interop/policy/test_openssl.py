"""OpenSSL as a foreign reader: fedids of keys and certificates, and our attribute certificates taken apart and verified."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path

import pytest

from deploy.cli import main
from fedkit.identity.keys import PrivateKey
from fedkit.policy.formats import Form, read, write
from fedkit.policy.formats.identities import Identities, read_identity
from fedkit.policy.model import Statement

MAKE = {
    "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "ed25519": ["-algorithm", "ED25519"],
}
KINDS = pytest.mark.parametrize("kind", MAKE)
Capsys = pytest.CaptureFixture[str]


def openssl(*arguments: object, given: bytes = b"") -> bytes:
    """Run `openssl`; what it says on standard output."""
    command = ["openssl", *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, check=True, timeout=60).stdout


@pytest.fixture
def key(kind: str, tmp_path: Path) -> Path:
    file = tmp_path / "private.pem"
    openssl("genpkey", *MAKE[kind], "-out", file)
    file.chmod(0o600)
    return file


@KINDS
def test_the_fedid_is_what_openssl_computes(kind: str, key: Path, tmp_path: Path, capsys: Capsys) -> None:
    """For public keys and certificates in PEM and DER, and for the private key itself."""
    der = openssl("pkey", "-in", key, "-pubout", "-outform", "DER")
    fedid = openssl("dgst", "-sha1", "-r", given=_bits(der, _elements(der)[-1])).split()[0].decode()

    certificate = tmp_path / "certificate.pem"
    openssl("req", "-x509", "-new", "-key", key, "-subj", "/CN=test", "-days", 30, "-out", certificate)
    shown = openssl("x509", "-in", certificate, "-noout", "-ext", "subjectKeyIdentifier").decode().split()[-1]
    assert shown.replace(":", "").lower() == fedid

    (tmp_path / "public.pem").write_bytes(openssl("pkey", "-in", key, "-pubout"))
    (tmp_path / "public.der").write_bytes(der)
    (tmp_path / "certificate.der").write_bytes(openssl("x509", "-in", certificate, "-outform", "DER"))
    for name in ("public.pem", "public.der", "certificate.pem", "certificate.der", "private.pem"):
        assert main(["id", "fingerprint", str(tmp_path / name)]) == 0
        assert capsys.readouterr().out == fedid + "\n"


@KINDS
def test_an_attribute_certificate_as_openssl_reads_it(kind: str, key: Path, tmp_path: Path) -> None:
    private = PrivateKey.load(key)
    statement = Statement.parse(f"{private.fedid}.a <- {private.fedid}.b.c & {'0' * 40}")
    expires = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    data = write(Form.X509, private, statement, expires)
    text = openssl("asn1parse", "-inform", "DER", given=data).decode()
    assert f"UTF8STRING        :{statement}" in text
    assert ":id-aca-group" in text  # 1.3.6.1.5.5.7.10.4
    assert "X509v3 Authority Key Identifier" in text
    assert private.fedid.upper() in text
    assert "GENERALIZEDTIME   :20300102030405Z" in text
    elements = _elements(data)
    begin, header, length = elements[1]  # what is signed: the first in the outer sequence
    signed, signature = tmp_path / "signed", tmp_path / "signature"
    signed.write_bytes(data[begin : begin + header + length])
    signature.write_bytes(_bits(data, elements[-1]))
    options = ["-rawin"] if kind == "ed25519" else ["-rawin", "-digest", "sha256"]
    said = openssl("pkeyutl", "-verify", "-inkey", key, *options, "-in", signed, "-sigfile", signature)
    assert b"Signature Verified Successfully" in said


def test_creddys_files_are_what_openssl_accepts(tmp_path: Path) -> None:
    assert main(["id", "create", "--cn", "Acme", "--key", "rsa", str(tmp_path)]) == 0
    identity = tmp_path / "Acme_ID.pem"
    assert openssl("verify", "-CAfile", identity, identity).strip().endswith(b"OK")
    shown = openssl("x509", "-in", identity, "-noout", "-subject", "-ext", "subjectKeyIdentifier").decode()
    assert "CN = Acme" in shown
    assert shown.split()[-1].replace(":", "").lower() == read_identity(identity.read_bytes()).fedid
    openssl("pkey", "-in", tmp_path / "Acme_private.pem", "-check", "-noout")


def test_identities_that_openssl_made(tmp_path: Path) -> None:
    """As creddy's: PKCS #1 key and certificate in one file, the certificate old and made with SHA-1."""
    pair = tmp_path / "Mark_IDKEY.pem"
    openssl("genrsa", "-traditional", "-out", pair, 2048)
    pair.write_bytes(
        pair.read_bytes() + openssl("req", "-x509", "-new", "-sha1", "-key", pair, "-subj", "/CN=Mark", "-days", 1080)
    )
    pair.chmod(0o600)
    identity, private = read_identity(pair.read_bytes()), PrivateKey.load(pair)
    assert (identity.name, identity.fedid) == ("Mark", private.fedid)
    assert b"BEGIN RSA PRIVATE KEY" in pair.read_bytes()
    statement = Statement.parse(f"{private.fedid}.a <- {private.fedid}.b")
    data = write(
        Form.GENI_1_1, private, statement, datetime.datetime.now(datetime.UTC), certificate=identity.certificate
    )
    identities = Identities()
    read(data, identities=identities)
    assert identities.names == {private.fedid: "Mark"}


def _elements(data: bytes) -> list[tuple[int, int, int]]:
    """Offset, length of the header and of the content of each element, as openssl finds them."""
    text = openssl("asn1parse", "-inform", "DER", given=data).decode()
    found = re.findall(r"^ *(\d+):d=\d+ +hl=(\d+) +l= *(\d+) ", text, re.MULTILINE)
    return [(int(offset), int(header), int(length)) for offset, header, length in found]


def _bits(data: bytes, element: tuple[int, int, int]) -> bytes:
    """The content of a BIT STRING, without the octet that counts unused bits."""
    offset, header, length = element
    return data[offset + header + 1 : offset + header + length]
