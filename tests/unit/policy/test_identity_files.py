"""Identity files: what is read, and what is refused with a code."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey
from fedkit.policy.errors import UnusableIdentity
from fedkit.policy.formats.identities import (
    LIMIT,
    Identities,
    Identity,
    holds_only_private_key,
    load_certificate,
    printable,
    read_identity,
    self_signed,
)

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
KEY = PrivateKey.generate("p256")
CERTIFICATE = self_signed(KEY, "Acme", NOW)
PEM, DER = (CERTIFICATE.public_bytes(encoding) for encoding in (Encoding.PEM, Encoding.DER))
ODD_VERSION = DER.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x0a", 1)


@pytest.mark.parametrize("data", [PEM, DER, KEY.pem + PEM, PEM + KEY.pem, b"Subject: CN = Acme\n" + PEM])
def test_a_certificate_in_whatever_wrapping(data: bytes) -> None:
    identity = read_identity(data)
    assert (identity.fedid, identity.name, identity.key) == (KEY.fedid, "Acme", KEY.public)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_bare_public_key_has_no_name(encoding: Encoding) -> None:
    identity = read_identity(KEY.public.key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo))
    assert (identity.fedid, identity.name) == (KEY.fedid, None)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        KEY.pem,
        PEM[:-100],
        DER[:-1],
        ODD_VERSION,
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        PEM + b" " * LIMIT,
    ],
)
def test_what_is_no_identity(data: bytes) -> None:
    with pytest.raises(UnusableIdentity):
        read_identity(data)


def test_a_certificate_of_an_unknown_version() -> None:
    """Found by fuzzing: it is told in another way than all other malformations."""
    with pytest.raises(UnusableIdentity):
        load_certificate(ODD_VERSION)


@pytest.mark.parametrize("data", [ODD_VERSION, ODD_VERSION + b"x"])
def test_such_a_certificate_is_no_key_either(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    with pytest.raises(UnusableKey):
        PublicKey.from_file(file)


def test_a_common_name_that_is_no_text_is_none() -> None:
    """Found by fuzzing: cryptography tells of a BIT STRING in a name by a TypeError, when the name is looked at."""
    odd = DER.replace(b"\x0c\x04Acme", b"\x03\x04\x00cme")
    assert (read_identity(odd).fedid, read_identity(odd).name) == (KEY.fedid, None)


def test_which_files_hold_only_a_private_key() -> None:
    assert holds_only_private_key(KEY.pem)
    assert not any(map(holds_only_private_key, (PEM, DER, KEY.pem + PEM, b"", b"a.b.c")))


def test_the_first_name_stays_and_is_fit_to_be_shown() -> None:
    identities = Identities([Identity(KEY.public, CERTIFICATE)])
    identities.call(KEY.fedid, "Mallory")
    identities.add(Identity(KEY.public, self_signed(KEY, "Mallory", NOW)))
    identities.call("nobody", "Mallory")
    identities.call("0" * 40, "\x1b[31mred\u202e")
    identities.call("1" * 40, "\x00")
    assert identities.names == {KEY.fedid: "Acme", "0" * 40: "[31mred"}
    assert printable("x" * 100) == "x" * 64


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65])
def test_a_certificate_has_a_usable_name(name: str) -> None:
    with pytest.raises(UnusableIdentity):
        self_signed(KEY, name, NOW)


def test_a_certificate_without_a_name_is_an_identity() -> None:
    builder = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([])).public_key(KEY.public.key)
    )
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + datetime.timedelta(days=1))
    certificate = builder.sign(KEY.key, hashes.SHA256())
    assert read_identity(certificate.public_bytes(Encoding.DER)).name is None
