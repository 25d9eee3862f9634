"""Signed texts carry their key, have a purpose, and cannot be changed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, UnusableKey

KEYS = [PrivateKey.generate(kind) for kind in ("ed25519", "p256", "rsa")]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.public.algorithm)
def test_what_is_signed_is_read_back_with_its_signer(key: PrivateKey) -> None:
    signed = jws.verify(jws.sign(key, "test+jws", b"payload"), "test+jws")
    assert signed.payload == b"payload"
    assert signed.key == key.public


@settings(max_examples=200)
@given(st.sampled_from(KEYS[:2]), st.binary(max_size=200), st.data())
def test_no_character_can_be_changed(key: PrivateKey, payload: bytes, data: st.DataObject) -> None:
    text = jws.sign(key, "test+jws", payload)
    position = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("ABCDwxyz0189-_."))
    changed = text[:position] + letter + text[position + 1 :]
    try:
        signed = jws.verify(changed, "test+jws")
    except (jws.NotSigned, jws.BadSignature, UnusableKey):
        return
    assert signed.payload == payload  # only the unused bits of a last base64 digit may differ
    assert signed.key == key.public


def test_a_text_for_one_purpose_is_none_for_another() -> None:
    with pytest.raises(jws.NotSigned):
        jws.verify(jws.sign(KEYS[0], "one+jws", b""), "other+jws")


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256", "EdDSA ", ""])
def test_the_algorithm_is_the_keys_not_the_headers(algorithm: str) -> None:
    text = jws.sign(KEYS[0], "test+jws", b"")
    header = json.loads(jws.decode(text.split(".")[0]))
    header["alg"] = algorithm
    forged = ".".join([jws.encode(json.dumps(header).encode()), *text.split(".")[1:]])
    with pytest.raises(UnusableKey):
        jws.verify(forged, "test+jws")


def test_a_header_that_is_too_long() -> None:
    text = jws.sign(KEYS[0], "test+jws", b"")
    with pytest.raises(jws.NotSigned):
        jws.verify("A" * 5000 + text, "test+jws")
