"""A member is found by what a person calls it."""

from __future__ import annotations

import pytest

from federation_member.directory.errors import AmbiguousMember, UnknownMember
from federation_member.directory.model import KnownMember, find
from tests.unit.rendezvous.support import NOON, Site

SITE_A, SITE_B = Site("site-a.test"), Site("site-b.test")
NEW_KEY = Site("site-b.test")


def known(site: Site, *, alive: bool = True) -> KnownMember:
    return KnownMember(site.describe(), alive, NOON)


@pytest.mark.parametrize(
    "text",
    ["site-b.test", "fm.site-b.test", SITE_B.key.fedid, " Site-B.test"],
    ids=["name", "address", "fedid", "name as somebody writes it"],
)
def test_by_name_address_and_fedid(text: str) -> None:
    assert find([known(SITE_A), known(SITE_B)], text).fedid == SITE_B.key.fedid


def test_says_the_nearest_name() -> None:
    with pytest.raises(UnknownMember, match=r"did you mean site-b.test\?") as caught:
        find([known(SITE_A), known(SITE_B)], "site-bb.test")
    assert caught.value.details["nearest"] == "site-b.test"


def test_says_whom_it_knows() -> None:
    with pytest.raises(UnknownMember, match=r"known: site-a\.test"):
        find([known(SITE_A)], "zzz")
    with pytest.raises(UnknownMember, match="nobody yet"):
        find([], "zzz")


def test_the_living_one_wins_after_a_change_of_key() -> None:
    members = [known(SITE_B, alive=False), known(NEW_KEY)]
    assert find(members, "site-b.test").fedid == NEW_KEY.key.fedid
    assert find(members, SITE_B.key.fedid).fedid == SITE_B.key.fedid


def test_two_living_members_of_one_name_are_ambiguous() -> None:
    with pytest.raises(AmbiguousMember) as caught:
        find([known(SITE_B), known(NEW_KEY)], "site-b.test")
    assert caught.value.details["fedids"] == sorted([SITE_B.key.fedid, NEW_KEY.key.fedid])
