"""Revocation lists: signed, bounded, the newest of each issuer counts."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.identity import jws
from fedkit.policy import revocation
from fedkit.policy.errors import BadRevocationList
from fedkit.policy.revocation import LIMIT, TYPE, Revocations, issue, read
from tests.unit.policy.said import KEYS, NOW, credential

LATER = NOW + timedelta(days=1)
SECONDS = int(NOW.timestamp())
ID = "0123456789abcdef" * 4


def _signed(payload: object, typ: str = TYPE) -> str:
    return jws.sign(KEYS["A"], typ, payload if isinstance(payload, bytes) else json.dumps(payload).encode())


@settings(deadline=None)
@given(
    st.integers(0, 2**63 - 1),
    st.dictionaries(st.binary(min_size=32, max_size=32).map(bytes.hex), st.integers(1, 10**6)),
)
def test_what_is_issued_is_read_back(serial: int, terms: dict[str, int]) -> None:
    revoked = {name: NOW + timedelta(seconds=term) for name, term in terms.items()}
    issued = issue(KEYS["A"], serial, NOW, revoked)
    assert read(issued.text) == issued
    assert (issued.issuer, issued.serial, issued.issued) == (KEYS["A"].public, serial, NOW)
    assert issued.revoked == revoked


def test_the_order_of_what_is_revoked_does_not_matter() -> None:
    one, two = {"1" * 64: LATER}, {"2" * 64: LATER}
    assert issue(KEYS["A"], 1, NOW, one | two).text == issue(KEYS["A"], 1, NOW, two | one).text


def test_what_has_expired_is_left_out() -> None:
    terms = {"1" * 64: NOW - timedelta(seconds=1), "2" * 64: NOW, "3" * 64: NOW + timedelta(seconds=1)}
    assert set(issue(KEYS["A"], 1, NOW, terms).revoked) == {"3" * 64}


def test_times_are_whole_seconds() -> None:
    odd = timedelta(milliseconds=700)
    issued = issue(KEYS["A"], 1, NOW + odd, {ID: LATER + odd})
    assert issued.issued == NOW
    assert issued.revoked == {ID: LATER}


def test_a_list_is_at_most_64_kib_long() -> None:
    def many(number: int) -> dict[str, object]:
        return {f"{index:064x}": LATER for index in range(number)}

    fits = issue(KEYS["A"], 1, NOW, many(580))  # type: ignore[arg-type]
    assert len(fits.revoked) == 580
    with pytest.raises(BadRevocationList, match="at most 65536 characters; this one has 9"):
        issue(KEYS["A"], 1, NOW, many(900))  # type: ignore[arg-type]
    exactly = fits.text + "A" * (LIMIT - len(fits.text))
    with pytest.raises(BadRevocationList, match="signature does not verify"):
        read(exactly)
    with pytest.raises(BadRevocationList, match="at most"):
        read(exactly + "A")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "payload: Invalid JSON"),
        (b"[]", "payload: Input should be an object"),
        ({"serial": 1, "issued": SECONDS}, "revoked: Field required"),
        ({"serial": 1, "revoked": {}}, "issued: Field required"),
        ({"issued": SECONDS, "revoked": {}}, "serial: Field required"),
        ({"serial": -1, "issued": SECONDS, "revoked": {}}, "serial: "),
        ({"serial": 2**63, "issued": SECONDS, "revoked": {}}, "serial: "),
        ({"serial": "1", "issued": SECONDS, "revoked": {}}, "serial: "),
        ({"serial": 1, "issued": -1, "revoked": {}}, "issued: "),
        ({"serial": 1, "issued": 253402300800, "revoked": {}}, "issued: "),
        ({"serial": 1, "issued": SECONDS, "revoked": {ID[1:]: SECONDS}}, "revoked"),
        ({"serial": 1, "issued": SECONDS, "revoked": {ID + "0": SECONDS}}, "revoked"),
        ({"serial": 1, "issued": SECONDS, "revoked": {ID.upper(): SECONDS}}, "revoked"),
        ({"serial": 1, "issued": SECONDS, "revoked": {ID + "\n": SECONDS}}, "revoked"),
        ({"serial": 1, "issued": SECONDS, "revoked": {ID: 253402300800}}, "revoked"),
        ({"serial": 1, "issued": SECONDS, "revoked": {ID: -1}}, "revoked"),
        ({"serial": 1, "issued": SECONDS, "revoked": {}, "more": 1}, "more: "),
    ],
)
def test_malformed_lists_are_refused(payload: object, reason: str) -> None:
    with pytest.raises(BadRevocationList, match=f"Not a revocation list: {reason}"):
        read(_signed(payload))


def test_what_no_list_can_say_is_not_signed() -> None:
    for serial, issued, revoked in ((-1, NOW, {}), (1, NOW, {"no id": LATER}), (1, NOW - timedelta(days=40000), {})):
        with pytest.raises(BadRevocationList):
            issue(KEYS["A"], serial, issued, revoked)


def test_the_bounds_of_numbers() -> None:
    for serial, at in ((0, 0), (2**63 - 1, 253402300799)):
        assert read(_signed({"serial": serial, "issued": at, "revoked": {ID: at}})).serial == serial


def test_a_list_is_no_credential_and_is_signed() -> None:
    good = {"serial": 1, "issued": SECONDS, "revoked": {}}
    assert read(_signed(good)).issuer == KEYS["A"].public
    for text in (
        _signed(good, "fedmesh-credential+jws"),
        _signed(good)[:-4] + "AAAA",
        "",
        "a.b.c",
        "\N{SNOWMAN}",
    ):
        with pytest.raises(BadRevocationList, match="Not a revocation list: "):
            read(text)


def test_the_newest_list_of_each_issuer_counts() -> None:
    mine, other = credential("A.r <- U"), credential("A.s <- U")
    known = Revocations()
    assert not known.revokes(mine)
    assert known.note(issue(KEYS["A"], 5, NOW, {mine.id: LATER}))
    assert known.note(issue(KEYS["B"], 1, NOW, {other.id: LATER}))  # B cannot revoke what A said
    assert known.revokes(mine)
    assert not known.revokes(other)
    for serial in (4, 5):
        assert not known.note(issue(KEYS["A"], serial, NOW, {other.id: LATER}))
    assert not known.revokes(other)
    assert known.note(issue(KEYS["A"], 6, NOW, {other.id: LATER}))
    assert known.revokes(other)
    assert not known.revokes(mine)


def test_errors_have_a_stable_code() -> None:
    with pytest.raises(BadRevocationList) as caught:
        revocation.read("x")
    assert caught.value.code == "policy.bad_revocation_list"
