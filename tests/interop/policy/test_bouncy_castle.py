"""Bouncy Castle, with which DETER's Java library writes attribute certificates, against ours: each reads what the other wrote."""

from __future__ import annotations

import datetime
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fedkit.identity.keys import PrivateKey
from fedkit.policy.errors import WeakSignature
from fedkit.policy.formats import Form, read, write
from fedkit.policy.formats.identities import Identities, Identity, self_signed
from fedkit.policy.model import Statement

JARS = [Path(f"/usr/share/java/{name}.jar") for name in ("bcprov", "bcpkix", "bcutil")]
PROGRAM = Path(__file__).with_name("AttributeCertificate.java")
EXPIRES = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
RSA, P256 = PrivateKey(rsa.generate_private_key(65537, 2048)), PrivateKey.generate("p256")


def java(*arguments: object) -> list[str]:
    """Run our Java program; what it says, by lines."""
    command = ["java", "-cp", ":".join(map(str, JARS)), str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout.splitlines()


@pytest.fixture(autouse=True)
def needs_java() -> None:
    if shutil.which("java") is None or not all(jar.exists() for jar in JARS):
        pytest.skip("no Java with Bouncy Castle here; apt-get install default-jdk-headless libbcpkix-java")


@pytest.mark.parametrize("key", [RSA, P256], ids=["rsa", "p256"])
def test_bouncy_castle_reads_what_we_write(key: PrivateKey, tmp_path: Path) -> None:
    identity, file = tmp_path / "ID.pem", tmp_path / "attr.der"
    identity.write_bytes(self_signed(key, "Acme", EXPIRES).public_bytes(Encoding.PEM))
    statement = Statement.parse(f"{key.fedid}.a <- {key.fedid}.b.c & {'0' * 40}")
    file.write_bytes(write(Form.X509, key, statement, EXPIRES))
    assert java("read", identity, file) == [
        "true", "2", f"CN={key.fedid} CN={key.fedid}", f"[[{statement}]]", "2030-01-02T03:04:05Z", "true",
    ]  # fmt: skip


@pytest.mark.parametrize("algorithm", ["SHA256WithRSAEncryption", "SHA1WithRSAEncryption"])
def test_we_read_what_bouncy_castle_writes(algorithm: str, tmp_path: Path) -> None:
    identity, private, file = tmp_path / "ID.pem", tmp_path / "private.pem", tmp_path / "attr.der"
    identity.write_bytes(self_signed(RSA, "Acme", EXPIRES).public_bytes(Encoding.PEM))
    RSA.save(private)
    statement = Statement.parse(f"{RSA.fedid}.a <- {'0' * 40}.b")
    java("write", identity, private, statement, algorithm, file)
    data, known = file.read_bytes(), Identities([Identity(RSA.public)])
    if algorithm.startswith("SHA1"):
        with pytest.raises(WeakSignature):
            read(data, identities=known)
    (credential,) = read(data, identities=known, allow_sha1=True)
    assert credential.statement == statement
    assert credential.holds_at(datetime.datetime.now(datetime.UTC))
