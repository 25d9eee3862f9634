"""Patterns of three-level names, and the laws of matching."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedkit.identity.names import Name, UnusableName
from fedkit.identity.patterns import NamePattern, is_wild
from tests.unit.identity.test_names import FEDID, fedids, locals_, names

fields = locals_ | st.sampled_from(["*", "", "?", "[a-z]*", "al*", "[", "!", "]x["]) | fedids
patterns = st.builds(lambda *parts: parts, fields, fields, fields).filter(any).map(lambda parts: NamePattern(*parts))


@given(patterns)
def test_what_is_written_is_read_back(pattern: NamePattern) -> None:
    assert NamePattern.parse(str(pattern)) == pattern


@given(names, names)
def test_a_name_is_a_pattern_of_itself_alone(one: Name, other: Name) -> None:
    assert NamePattern.exactly(one).matches(one)
    assert NamePattern.exactly(one).matches(other) == (one == other)


@given(names)
def test_every_name_fits_exactly_one_of_the_three_that_fit_all(name: Name) -> None:
    everybody = [NamePattern("*", "*", "*"), NamePattern("", "*", "*"), NamePattern("", "", "*")]
    assert sum(pattern.matches(name) for pattern in everybody) == 1


@given(patterns, names, st.sampled_from(["project", "user"]))
def test_a_wider_field_loses_nobody(pattern: NamePattern, name: Name, field: str) -> None:
    level = ("testbed", "project", "user").index(field)
    if pattern.matches(name) and level > pattern.level:
        assert replace(pattern, **{field: "*"}).matches(name)


@given(patterns, names, st.lists(locals_))
def test_other_names_of_the_asserter_only_add(pattern: NamePattern, name: Name, known_as: list[str]) -> None:
    assert pattern.matches(name, known_as) >= pattern.matches(name)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*/proj1/*", f"{FEDID}/proj1/alice", True),
        ("*/proj1/*", f"{FEDID}/proj2/alice", False),
        ("*/proj1/*", f"/{FEDID}/alice", False),
        ("*//*", f"{FEDID}//alice", True),
        ("*//*", f"{FEDID}/proj1/alice", False),
        ("*/*/*", f"{FEDID}//alice", True),
        ("*/?*/*", f"{FEDID}//alice", False),
        ("*/*/al[ij]ce", f"{FEDID}/p/alice", True),
        ("*/*/al[!i]ce", f"{FEDID}/p/alice", False),
        ("*/*/ALICE", f"{FEDID}/p/alice", False),
        (f'(fedid:{FEDID}, "proj1", "*")', f"{FEDID}/proj1/alice", True),
        (f"/{FEDID}/*", f"/{FEDID}/alice", True),
        (f"//{FEDID}", f"//{FEDID}", True),
        (f"//{FEDID}", f"{FEDID}/p/alice", False),
        (f"{FEDID}/*/", f"{FEDID}/p/alice", False),
        ("fm.*.edu/*/*", f"{FEDID}/p/alice", True),
        ("fm.*.org/*/*", f"{FEDID}/p/alice", False),
    ],
)
def test_matching(pattern: str, name: str, fits: bool) -> None:
    assert NamePattern.parse(pattern).matches(Name.parse(name), ["fm.site-a.edu"]) is fits


@pytest.mark.parametrize(
    "text",
    ["//", "", "a/b", "a/b/c/d", "a b/c/d", "a/ü/*", "a/{b}/*", f"{'a' * 254}/*/*", f"a/{'b' * 129}/*", "a/*/*\n"],
)
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(UnusableName):
        NamePattern.parse(text)


def test_an_address_may_be_longer_than_a_name() -> None:
    assert NamePattern.parse(f"{'a' * 253}/*/*").level == 0


@pytest.mark.parametrize(
    ("part", "wild"), [("*", True), ("a?", True), ("[ab]", True), ("a.b@c", False), ("", False), ("a!", False)]
)
def test_what_is_wild(part: str, wild: bool) -> None:
    assert is_wild(part) is wild
