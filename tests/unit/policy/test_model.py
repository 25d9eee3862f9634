"""RT0 as it is written, and what a credential is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.policy.model import (
    PARTS_LIMIT,
    STATEMENT_LIMIT,
    Credential,
    Entity,
    Linked,
    Role,
    Statement,
    UnusableStatement,
    parse_part,
)
from tests.unit.policy.said import FEDIDS, KEYS, NOW, credential, letters, statement

A, B = FEDIDS["A"], FEDIDS["B"]

fedids = st.text("0123456789abcdef", min_size=40, max_size=40)
names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_-]{0,20}\Z")
roles = st.builds(Role, fedids, names)
parts = st.one_of(st.builds(Entity, fedids), roles, st.builds(Linked, fedids, names, names))
statements = st.builds(Statement, roles, st.lists(parts, min_size=1, max_size=8).map(tuple))


@settings(deadline=None)
@given(statements)
def test_what_is_printed_is_read_back(said: Statement) -> None:
    assert Statement.parse(str(said)) == said
    assert Statement.parse(str(said).replace(" ", "")) == said
    assert Statement.parse(f"  {str(said).replace(' ', '   ')}\n") == said
    assert list(said.principals()) == [str(said.head).split(".")[0], *(str(part).split(".")[0] for part in said.tail)]


@settings(deadline=None)
@given(parts)
def test_parts_are_told_by_their_dots(part: Entity | Role | Linked) -> None:
    assert parse_part(str(part)) == part


@settings(deadline=None)
@given(st.text(max_size=60) | st.text("ab01. <-&", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        said = Statement.parse(text)
    except UnusableStatement:
        return
    assert Statement.parse(str(said)) == said


def test_the_forms_of_a_tail() -> None:
    said = statement("A.r <- B & B.s & B.s.t")
    assert said.head == Role(A, "r")
    assert said.tail == (Entity(B), Role(B, "s"), Linked(B, "s", "t"))
    assert Linked(B, "s", "t").base == Role(B, "s")
    assert letters(said) == "A.r <- B & B.s & B.s.t"


# With {A} and {B} for fedids: names of tests are the same in every process.
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no <-"),
        ("{A}.r", "has no <-"),
        ("{A}.r <- ", "40 lower-case hex digits"),
        ("<- {A}", "40 lower-case hex digits"),
        ("{A} <- {B}", "A role is written <fedid>.<role>"),
        ("{A}.r.s <- {B}", "A role is written <fedid>.<role>"),
        ("{A}.r <- {B}.s.t.u", "at most two roles"),
        ("{A}.r <- {B} &", "40 lower-case hex digits"),
        ("{A}.r <- {B} & & {B}", "40 lower-case hex digits"),
        ("{A}.r <- {B} <- {B}", "40 lower-case hex digits"),
        ("{UPPER}.r <- {B}", "40 lower-case hex digits"),
        ("{SHORT}.r <- {B}", "40 lower-case hex digits"),
        ("{A}0.r <- {B}", "40 lower-case hex digits"),
        ("{A}. <- {B}", "letters, digits, - and _"),
        ("{A}.-r <- {B}", "letters, digits, - and _"),
        ("{A}._r <- {B}", "letters, digits, - and _"),
        ("{A}.r s <- {B}", "letters, digits, - and _"),
        ("{A}.ä <- {B}", "letters, digits, - and _"),
        ("{A}.r <- {B}.s.-", "letters, digits, - and _"),
        ("{A}.r <- {B}.-.s", "letters, digits, - and _"),
        ("acme.r <- {B}", "40 lower-case hex digits"),
    ],
)
def test_what_is_no_statement(text: str, reason: str) -> None:
    text = text.format(A=A, B=B, UPPER=A.upper(), SHORT=A[:-1])
    with pytest.raises(UnusableStatement, match=reason) as caught:
        Statement.parse(text)
    assert caught.value.code == "policy.unusable_statement"


def test_an_intersection_has_at_most_256_parts() -> None:
    part = f"{B}.s"
    assert len(Statement.parse(f"{A}.r <- {' & '.join([part] * PARTS_LIMIT)}").tail) == PARTS_LIMIT
    with pytest.raises(UnusableStatement, match="1 to 256 parts; this one has 257"):
        Statement.parse(f"{A}.r <- {' & '.join([part] * (PARTS_LIMIT + 1))}")
    with pytest.raises(UnusableStatement, match="has 0"):
        Statement(Role(A, "r"), ())


def test_a_statement_is_at_most_64_kib_long() -> None:
    fill = STATEMENT_LIMIT - len(f"{A}.r <- {B}.")
    assert Statement.parse(f"{A}.r <- {B}.{'s' * fill}")
    with pytest.raises(UnusableStatement, match="at most 65536 characters; this one has 65537"):
        Statement.parse(f"{A}.r <- {B}.{'s' * fill}s")


def test_a_long_wrong_text_is_not_repeated_whole() -> None:
    with pytest.raises(UnusableStatement, match=f"'{'x' * 80}…' is not"):
        Role.parse(f"{'x' * 81}.r")
    with pytest.raises(UnusableStatement, match=f"'{'x' * 80}' is not"):
        Role.parse(f"{'x' * 80}.r")


def test_a_role_is_read_alone() -> None:
    assert Role.parse(f"{A}.r") == Role(A, "r")
    for text in (A, f"{A}.r.s", "", "."):
        with pytest.raises(UnusableStatement):
            Role.parse(text)


def test_a_credential_holds_from_its_first_instant_until_before_its_last() -> None:
    second = timedelta(seconds=1)
    said = credential("A.r <- B", until=NOW + second, since=NOW)
    assert [said.holds_at(NOW + shift * second) for shift in (-1, 0, 0.5, 1, 2)] == [False, True, True, False, False]
    assert credential("A.r <- B", until=NOW).holds_at(datetime(1, 1, 1, tzinfo=UTC))


def test_the_id_is_of_who_says_what_and_when_in_whatever_form() -> None:
    one = credential("A.r <- B", NOW, NOW - timedelta(days=1))
    elsewhere = timezone(timedelta(hours=5))
    same = Credential(
        one.statement, one.issuer, NOW.astimezone(elsewhere), one.not_before, "another", b"with another signature"
    )
    assert same.id == one.id
    assert len(one.id) == 64
    others = [
        credential("A.r <- C", NOW, NOW - timedelta(days=1)),
        credential("A.s <- B", NOW, NOW - timedelta(days=1)),
        credential("A.r <- B", NOW + timedelta(seconds=1), NOW - timedelta(days=1)),
        credential("A.r <- B", NOW, NOW - timedelta(days=2)),
        credential("A.r <- B", NOW),
        Credential(one.statement, KEYS["C"].public, one.expires, one.not_before, "said", b""),
    ]
    assert len({one.id, *(other.id for other in others)}) == 1 + len(others)
