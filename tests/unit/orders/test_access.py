"""The lender's list of rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation_member.access.allowlist import AllowList, Applicant
from federation_member.config import Lend
from federation_member.errors import NotAllowed

ME = "0" * 40
ALICE = Applicant("a" * 40, "fm.site-a.test", "physics", "alice", "compute")


def test_the_first_rule_that_fits_decides() -> None:
    access = AllowList([Lend(users=["al*"], account="guests"), Lend(account="others")], ME)
    assert access.decide(ALICE, dict).name == "guests"
    assert access.decide(replace(ALICE, user="bob"), dict).name == "others"


@pytest.mark.parametrize("pattern", ["a" * 40, "fm.site-a.test", "fm.*", "*"])
def test_members_are_known_by_fedid_or_address(pattern: str) -> None:
    assert AllowList([Lend(members=[pattern])], ME).decide(ALICE, dict)


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        ([], "Nothing is lent here"),
        ([Lend(members=["fm.site-b.test"])], "No rule lends to fm.site-a.test"),
        ([Lend(members=["x"]), Lend(projects=["art"])], "No rule lends to project 'physics'"),
        ([Lend(users=["bob"])], "No rule lends to user 'alice'"),
        ([Lend(kinds=["network"]), Lend(users=["bob"])], "No rule lends the kind compute"),
    ],
)
def test_a_refusal_says_what_was_missing(rules: list[Lend], missing: str) -> None:
    with pytest.raises(NotAllowed, match=missing):
        AllowList(rules, ME).decide(ALICE, dict)


def test_a_rule_limits_all_that_it_fits_together() -> None:
    access = AllowList([Lend(projects=["physics"], instances=3)], ME)
    bob = replace(ALICE, user="bob")
    assert access.decide(ALICE, lambda: {ALICE: 1, bob: 1, replace(ALICE, project="art"): 5})
    with pytest.raises(NotAllowed, match="lends 3 instances at a time, and 3 exist"):
        access.decide(ALICE, lambda: {ALICE: 1, bob: 2})


def test_own_users_need_no_rule_but_can_be_limited() -> None:
    mine = replace(ALICE, fedid=ME)
    assert AllowList([], ME).decide(mine, dict)
    with pytest.raises(NotAllowed):
        AllowList([Lend(instances=0)], ME).decide(mine, dict)
