"""What the operators' guide shows works, and decides as it says there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation_member.access.advice import advise
from federation_member.access.expectations import check, outcomes
from federation_member.access.policy_file import read
from federation_member.access.suppose import UNKNOWN
from federation_member.access.who import Who

GUIDE = Path(__file__).parents[3] / "docs" / "operators.md"
SECTION = GUIDE.read_text().partition("\n## Who may have what\n")[2].partition("\n## ")[0]
POLICIES = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)


def test_the_guide_has_policies() -> None:
    assert len(POLICIES) >= 3


@pytest.mark.parametrize("text", POLICIES, ids=range(len(POLICIES)))
def test_a_policy_of_the_guide_decides_as_it_says(text: str) -> None:
    rules = read(text.encode(), "operators.md")
    assert check(rules, UNKNOWN) >= 2
    assert {one.allowed for one in rules.expectations} == {True, False}
    assert advise(rules) == []
    allowed = {one.decision.allowed.rule.name for one in outcomes(rules, UNKNOWN) if one.decision.allowed}
    assert allowed <= {rule.name for rule in rules.rules}


def test_every_form_of_who_in_the_guide_is_one() -> None:
    principals = dict.fromkeys(("site-a", "acme", "alice", "proj-key"), "ab" * 20)
    forms = [
        form for row in re.findall(r"^\| (`.*?) \|", SECTION, re.MULTILINE) for form in re.findall(r"`(.*?)`", row)
    ]
    assert len(forms) >= 11
    for form in forms:
        assert Who.parse(form, principals).terms
