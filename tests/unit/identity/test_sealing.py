"""What is sealed is opened by its key and purpose, and by nothing else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.identity import sealing
from fedkit.identity.keys import PrivateKey, UnusableKey

KEY = sealing.new_key()
PUBLIC = sealing.public_text(KEY)


@given(st.binary(max_size=512), st.text(max_size=20))
def test_whoever_has_the_key_reads_it(content: bytes, purpose: str) -> None:
    assert sealing.open_sealed(KEY, purpose, sealing.seal(PUBLIC, purpose, content)) == content


@given(st.data())
def test_nothing_that_was_changed_opens(data: st.DataObject) -> None:
    sealed = bytearray(base64.b64decode(sealing.seal(PUBLIC, "login", b"secret")))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(sealing.NotForThisKey):
        sealing.open_sealed(KEY, "login", base64.b64encode(sealed).decode())


@pytest.mark.parametrize("sealed", ["", "AAAA", "no base64!", "é"])
def test_what_is_no_sealed_text_is_refused(sealed: str) -> None:
    with pytest.raises(sealing.NotForThisKey):
        sealing.open_sealed(KEY, "login", sealed)


def test_another_key_or_purpose_opens_nothing() -> None:
    sealed = sealing.seal(PUBLIC, "login", b"secret")
    for key, purpose in ((sealing.new_key(), "login"), (KEY, "logout")):
        with pytest.raises(sealing.NotForThisKey):
            sealing.open_sealed(key, purpose, sealed)


@pytest.mark.parametrize("public", ["", "AAAA", "no base64!", base64.b64encode(bytes(32)).decode()])
def test_what_is_no_key_cannot_be_sealed_to(public: str) -> None:
    with pytest.raises(UnusableKey):
        sealing.seal(public, "login", b"")


def test_both_keys_of_one_file_are_found() -> None:
    identity = PrivateKey.generate()
    text = identity.pem + sealing.pem(KEY)
    assert PrivateKey.from_pem(text).fedid == identity.fedid
    assert sealing.public_text(sealing.from_pem(text, "the file")) == PUBLIC
    with pytest.raises(UnusableKey, match="the file"):
        sealing.from_pem(identity.pem, "the file")
