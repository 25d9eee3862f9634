"""Who claims a fedid shows the key: in a TLS handshake, or by signing a challenge."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedkit.identity import challenge, tls
from fedkit.identity.challenge import NotPossessed
from fedkit.identity.keys import PrivateKey

NOW = datetime.now(UTC)
TERM = timedelta(days=1)


class Party:
    """Somebody with a key and a certificate that they made themselves."""

    def __init__(self, folder: Path, name: str, kind: str = "ed25519") -> None:
        self.key = PrivateKey.generate(kind)
        self.certificate = tls.self_signed(self.key, NOW - TERM, 2 * TERM)
        self.file = self.write(folder / f"{name}.pem", self.key)

    def write(self, file: Path, key: PrivateKey) -> Path:
        """Write this certificate with a key."""
        file.write_bytes(self.certificate + key.pem)
        return file


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """A real handshake, in memory; raises what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = list(ends)
    for _ in range(10):
        for end in list(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                continue
    for end in ends:  # with TLS 1.3 a client learns with its first read that it was refused
        try:
            end.read(1)
        except ssl.SSLWantReadError:
            continue
    assert not waiting
    return ends[1], ends[0]


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_a_handshake_proves_both_keys(tmp_path: Path, kind: str) -> None:
    a, b = Party(tmp_path, "a", kind), Party(tmp_path, "b")
    server = tls.context(b.file, [a.certificate], server=True)
    client = tls.context(a.file, [b.certificate], server=False)
    at_server, at_client = shake_hands(server, client)
    assert tls.key_of_peer(at_server) == a.key.public
    assert tls.key_of_peer(at_client).fedid == b.key.fedid


def test_who_is_not_pinned_gets_no_connection(tmp_path: Path) -> None:
    a, b, stranger = Party(tmp_path, "a"), Party(tmp_path, "b"), Party(tmp_path, "stranger")
    server = tls.context(b.file, [a.certificate], server=True)
    with pytest.raises(ssl.SSLError):
        shake_hands(server, tls.context(stranger.file, [b.certificate], server=False))
    with pytest.raises(ssl.SSLError):
        shake_hands(
            tls.context(stranger.file, [a.certificate], server=True), tls.context(a.file, [b.certificate], server=False)
        )


def test_a_certificate_without_its_key_is_worth_nothing(tmp_path: Path) -> None:
    a, b, thief = Party(tmp_path, "a"), Party(tmp_path, "b"), PrivateKey.generate()
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        tls.context(a.write(tmp_path / "stolen.pem", thief), [b.certificate], server=False)
    forged = Party(tmp_path, "forged")  # says that it is A, signed by another key
    forged.certificate = _claiming(a.key, thief)
    forged.write(forged.file, thief)
    server = tls.context(b.file, [a.certificate], server=True)
    with pytest.raises(ssl.SSLError):
        shake_hands(server, tls.context(forged.file, [b.certificate], server=False))


def _claiming(whom: PrivateKey, by: PrivateKey) -> bytes:
    """A certificate with the name of one key and the public half of another."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import NameOID

    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, whom.fedid)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(by.public.key)
    builder = builder.serial_number(7).not_valid_before(NOW - TERM).not_valid_after(NOW + TERM)
    return builder.sign(by.key, None).public_bytes(Encoding.PEM)


def test_a_pinned_certificate_ends_with_its_term(tmp_path: Path) -> None:
    a, b = Party(tmp_path, "a"), Party(tmp_path, "b")
    a.certificate = tls.self_signed(a.key, NOW - 2 * TERM, TERM)
    a.write(a.file, a.key)
    server = tls.context(b.file, [a.certificate], server=True)
    with pytest.raises(ssl.SSLError):
        shake_hands(server, tls.context(a.file, [b.certificate], server=False))


def test_who_shows_no_certificate_gets_no_connection(tmp_path: Path) -> None:
    a, b = Party(tmp_path, "a"), Party(tmp_path, "b")
    silent = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    silent.check_hostname = False
    silent.verify_mode = ssl.CERT_NONE
    with pytest.raises(ssl.SSLError):
        shake_hands(tls.context(b.file, [a.certificate], server=True), silent)


VERIFIER, OTHER = PrivateKey.generate().fedid, PrivateKey.generate().fedid


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_an_answer_names_its_key(kind: str) -> None:
    key, nonce = PrivateKey.generate(kind), challenge.new_nonce()
    text = challenge.answer(key, nonce, VERIFIER, "alice", "bound")
    assert challenge.nonce_of(text) == nonce
    assert challenge.check(text, nonce, VERIFIER, "alice", "bound") == key.public


@pytest.mark.parametrize(
    "wanted",
    [
        ("another nonce", VERIFIER, "alice", "bound"),
        ("nonce", OTHER, "alice", "bound"),
        ("nonce", VERIFIER, "bob", "bound"),
        ("nonce", VERIFIER, "alice", "exchanged"),
    ],
)
def test_an_answer_is_for_one_challenge_one_verifier_one_user_and_one_text(wanted: tuple[str, str, str, str]) -> None:
    text = challenge.answer(PrivateKey.generate(), "nonce", VERIFIER, "alice", "bound")
    with pytest.raises(NotPossessed):
        challenge.check(text, *wanted)


@pytest.mark.parametrize("text", ["", "a.b.c", "é" * 10, "x" * 10_000_000, "eyJhbGciOiJub25lIn0.e30."])
def test_nonsense_is_no_answer(text: str) -> None:
    with pytest.raises(NotPossessed):
        challenge.nonce_of(text)
