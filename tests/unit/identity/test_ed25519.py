"""Ed25519 by libsodium: the same signatures as anybody's (RFC 8032), and no key under which anything verifies."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as some

from fedkit.identity.keys import PrivateKey, PublicKey

# RFC 8032 §7.1, TEST 3
SEED = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)
SMALL_ORDER = bytes([1]) + bytes(31)  # the neutral element


def test_a_known_signature() -> None:
    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(SEED))
    assert key.sign(b"\xaf\x82") == SIGNATURE
    assert key.public.verifies(SIGNATURE, b"\xaf\x82")


@given(some.binary(min_size=32, max_size=32), some.binary(max_size=200))
def test_openssl_signs_and_verifies_alike(seed: bytes, message: bytes) -> None:
    theirs = Ed25519PrivateKey.from_private_bytes(seed)
    ours = PrivateKey(theirs)
    assert ours.sign(message) == theirs.sign(message)
    theirs.public_key().verify(ours.sign(message), message)
    assert ours.public.verifies(theirs.sign(message), message)


@given(some.binary(min_size=1, max_size=64), some.integers(0, 63))
def test_another_message_another_signature_or_another_cut_between_them_does_not_verify(message: bytes, at: int) -> None:
    key = PrivateKey(Ed25519PrivateKey.from_private_bytes(SEED))
    signature = key.sign(message)
    altered = signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
    assert not key.public.verifies(altered, message)
    assert not key.public.verifies(signature, message + b"x")
    assert not key.public.verifies(signature + message[:1], message[1:])
    assert not key.public.verifies(signature[:-1], signature[-1:] + message)
    assert not key.public.verifies(b"", signature + message)


def test_a_key_of_small_order_signs_nothing() -> None:
    key = PublicKey.of(Ed25519PublicKey.from_public_bytes(SMALL_ORDER))
    assert not key.verifies(SMALL_ORDER + bytes(32), b"anything")
