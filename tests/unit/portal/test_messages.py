"""Messages between portals: what is written is read, and a stranger's text is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.portal.errors import Violation
from fedkit.portal.messages import LIMIT, Forward, Hello, Keyed, Keys, Message, Ping, Pong, decode, encode
from fedkit.portal.planes.sealing import KEY, SALT, Secret

numbers = st.integers(0, 2**53 - 1)
epochs = st.integers(0, 255)
endpoints = st.builds(
    lambda host, port: f"{host}:{port}", st.sampled_from(["a", "10.0.0.1", "[::1]"[1:-1]]), st.integers(1, 65535)
)
hellos = st.builds(
    Hello,
    numbers,
    st.lists(st.integers(0, 4094), max_size=5).map(tuple),
    st.booleans(),
    st.none() | st.integers(0, 65535),
    st.lists(st.builds(Forward, endpoints, endpoints), max_size=3).map(tuple),
)
secrets = st.builds(Secret, epochs, st.binary(min_size=KEY, max_size=KEY), st.binary(min_size=SALT, max_size=SALT))
messages = st.one_of(
    hellos, st.builds(Keys, secrets), *(st.builds(kind, numbers) for kind in (Ping, Pong)), st.builds(Keyed, epochs)
)


@given(messages)
def test_what_is_written_is_read(message: Message) -> None:
    assert decode(encode(message)) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["hello", "generation", "tags", "uso", "udp", "forwards", "keys", "key", "salt", "keyed", "ping", "pong"]
)


@given(st.binary(max_size=100) | st.dictionaries(names, json_values).map(lambda said: json.dumps(said).encode()))
def test_anything_is_a_message_or_a_violation(data: bytes) -> None:
    try:
        decode(data)
    except Violation:
        return


@pytest.mark.parametrize(
    "text",
    [
        '{"hello":1,"generation":1,"tags":[4095],"uso":true}',
        '{"hello":1,"generation":-1,"tags":[],"uso":true}',
        '{"hello":1,"generation":true,"tags":[],"uso":true}',
        '{"hello":1,"generation":1,"tags":[],"uso":true,"forwards":[{"listen":"a b:1","to":"c:1"}]}',
        '{"keys":1,"key":"00","salt":"00000000"}',
        '{"ping":"1"}',
        "[" * 10_000,
        " " * (LIMIT + 1),
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(Violation):
        decode(text.encode())


def test_what_a_later_version_says_is_passed_over() -> None:
    assert decode(b'{"new": 1}') is None


def test_a_key_is_not_shown() -> None:
    assert "key" not in repr(Keys(Secret(1, bytes(KEY), bytes(SALT))))
