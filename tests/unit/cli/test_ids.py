"""`fed id`, as other programs call it."""

from __future__ import annotations

import datetime
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from deploy.cli import main
from fedkit.identity.keys import PrivateKey


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_create_then_fingerprint(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key.pem"
    assert main(["id", "create", str(file), "--key", kind, "-o", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"] == kind
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert main(["id", "fingerprint", str(file)]) == 0
    assert capsys.readouterr().out == made["fedid"] + "\n"
    assert made["fedid"] == PrivateKey.load(file).fedid


def test_an_existing_key_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "key.pem"
    main(["id", "create", str(file)])
    before = file.read_bytes()
    assert main(["id", "create", str(file)]) == 2
    assert file.read_bytes() == before
    assert "[cli.unusable_file]" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("what", ["certificate", "public key"])
def test_every_form_has_the_same_fingerprint(
    encoding: Encoding, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = PrivateKey.generate("p256")
    file = tmp_path / "file"
    if what == "certificate":
        file.write_bytes(_certificate(key).public_bytes(encoding))
    else:
        file.write_bytes(key.public.key.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert main(["id", "fingerprint", str(file)]) == 0
    assert capsys.readouterr().out == key.fedid + "\n"


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\n", b"\x30\x82\xff\xff"])
def test_garbage_is_unusable_input(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert main(["id", "fingerprint", str(file)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "[identity.unusable_key]" in output.err


def _certificate(key: PrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    begin = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public.key)
    builder = builder.serial_number(1).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
    return builder.sign(key.key, hashes.SHA256())
