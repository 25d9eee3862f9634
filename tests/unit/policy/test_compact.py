"""Our own signed form of a credential."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey
from fedkit.policy.compact import LIMIT, TYPE, issue, read
from fedkit.policy.errors import BadCredential
from fedkit.policy.model import Role, Statement
from tests.unit.policy.said import FEDIDS, KEYS, NOW, statement

A, B = FEDIDS["A"], FEDIDS["B"]
SAID = statement("A.r <- B.s & B")
LATER = NOW + timedelta(days=1)
SECONDS = int(NOW.timestamp())


def _signed(payload: object, typ: str = TYPE) -> str:
    return jws.sign(KEYS["A"], typ, payload if isinstance(payload, bytes) else json.dumps(payload).encode())


@pytest.mark.parametrize("kind", ["ed25519", "p256", "rsa"])
def test_every_kind_of_key_signs(kind: str) -> None:
    key = PrivateKey.generate(kind)
    said = Statement(Role(key.fedid, "r"), SAID.tail)
    issued = issue(key, said, LATER, NOW)
    assert read(issued.raw.decode()) == issued
    assert (issued.statement, issued.issuer, issued.expires, issued.not_before) == (said, key.public, LATER, NOW)
    assert issued.encoding == "compact"


def test_a_credential_may_hold_from_ever() -> None:
    issued = issue(KEYS["A"], SAID, LATER)
    assert issued.not_before is None
    assert issued.holds_at(datetime(1970, 1, 1, tzinfo=UTC))


def test_what_is_signed_is_what_the_protocol_says() -> None:
    signed = jws.verify(issue(KEYS["A"], SAID, LATER, NOW).raw.decode(), TYPE)
    assert json.loads(signed.payload) == {"statement": str(SAID), "not_before": SECONDS, "expires": SECONDS + 86400}
    assert json.loads(jws.verify(issue(KEYS["A"], SAID, LATER).raw.decode(), TYPE).payload) == {
        "statement": str(SAID),
        "expires": SECONDS + 86400,
    }


def test_times_are_whole_seconds() -> None:
    odd = timedelta(milliseconds=700)
    issued = issue(KEYS["A"], SAID, LATER + odd, NOW + odd)
    assert (issued.not_before, issued.expires) == (NOW, LATER)


def test_nobody_speaks_for_another() -> None:
    with pytest.raises(BadCredential, match=f"Only {A} can say who has {A}.r; this key is {B}'s"):
        issue(KEYS["B"], SAID, LATER)
    with pytest.raises(BadCredential, match=f"{A} signed a statement about a role of {B}"):
        read(_signed({"statement": f"{B}.r <- {A}", "expires": SECONDS}))


def test_a_term_has_a_length() -> None:
    for since in (LATER, LATER + timedelta(seconds=1)):
        with pytest.raises(BadCredential, match="expires before it begins"):
            issue(KEYS["A"], SAID, LATER, since)
    assert issue(KEYS["A"], SAID, LATER, LATER - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "payload: Invalid JSON"),
        (b"\xff", "payload: Invalid JSON"),
        (b"[]", "payload: Input should be an object"),
        (b"[" * 1000, "payload: Invalid JSON"),
        ({"statement": str(SAID)}, "expires: Field required"),
        ({"expires": SECONDS}, "statement: Field required"),
        ({"statement": str(SAID), "expires": str(SECONDS)}, "expires: "),
        ({"statement": str(SAID), "expires": SECONDS + 0.5}, "expires: "),
        ({"statement": str(SAID), "expires": True}, "expires: "),
        ({"statement": str(SAID), "expires": -1}, "expires: "),
        ({"statement": str(SAID), "expires": 253402300800}, "expires: "),
        ({"statement": str(SAID), "expires": SECONDS, "not_before": -1}, "not_before: "),
        ({"statement": str(SAID), "expires": SECONDS, "not_before": 253402300800}, "not_before: "),
        ({"statement": str(SAID), "expires": SECONDS, "more": 1}, "more: "),
        ({"statement": "A.r <- B", "expires": SECONDS}, "A principal is a fedid"),
        ({"statement": f"{A}.r <- {B}.{'s' * 65536}", "expires": SECONDS}, "statement: "),
    ],
)
def test_malformed_credentials_are_refused(payload: object, reason: str) -> None:
    with pytest.raises(BadCredential, match=f"Not a credential: {reason}"):
        read(_signed(payload))


def test_the_bounds_of_times() -> None:
    first = read(_signed({"statement": str(SAID), "expires": 1, "not_before": 0}))
    assert first.not_before == datetime(1970, 1, 1, tzinfo=UTC)
    last = read(_signed({"statement": str(SAID), "expires": 253402300799, "not_before": 253402300798}))
    assert last.expires.year == 9999


def test_what_is_longer_than_any_credential_is_not_looked_at() -> None:
    text = "x" * LIMIT
    with pytest.raises(BadCredential, match="three base64url parts"):
        read(text)
    with pytest.raises(BadCredential, match=f"at most {LIMIT} characters; this one has {LIMIT + 1}"):
        read(text + "x")


def test_the_longest_statement_can_be_said_with_the_longest_key() -> None:
    parts = " & ".join(f"{B}.{'s' * 90}.{'t' * 80}" for _ in range(256))
    said = Statement.parse(f"{A}.r <- {parts}")
    assert read(issue(KEYS["A"], said, LATER).raw.decode()).statement == said


def test_a_text_signed_for_another_purpose_is_no_credential() -> None:
    with pytest.raises(BadCredential, match="not typed"):
        read(_signed({"statement": str(SAID), "expires": SECONDS}, "fedmesh-revocations+jws"))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_changed_text_is_refused_or_says_the_same(data: st.DataObject) -> None:
    issued = issue(KEYS["A"], SAID, LATER)
    text = issued.raw.decode()
    at = data.draw(st.integers(0, len(text) - 1))
    cut = data.draw(st.integers(0, 3))
    changed = text[:at] + data.draw(st.text("ABCxyz019-_.é", max_size=3)) + text[at + cut :]
    try:
        same = read(changed)
    except BadCredential:
        return
    assert same.id == issued.id
