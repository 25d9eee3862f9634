"""Which rules would lend somebody a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation_member.access.mapping import MACHINE, lending_machines
from federation_member.access.rules import Rule, Rules

FLAVOURS, IMAGES = ["small", "large"], ["debian"]
RULE = Rule("r", (), ("*",))


@pytest.mark.parametrize(
    ("rule", "lends"),
    [
        (RULE, True),
        (replace(RULE, may=("network",)), False),
        (replace(RULE, may=("comp*",), flavours=("l*",), images=("!windows",)), True),
        (replace(RULE, flavours=("huge",)), False),
        (replace(RULE, images=("windows",)), False),
        (replace(RULE, node_types=("pc*",)), False),
        (replace(RULE, count=0), True),
    ],
)
def test_rules_that_lend_no_machine_on_offer_do_not_count(rule: Rule, lends: bool) -> None:
    kept = lending_machines(Rules(rules=(rule,)), FLAVOURS, IMAGES).rules
    assert [one.name for one in kept] == (["r"] if lends else [])
    assert all(one.unfit(MACHINE) is None and one.count is None and one.account == rule.account for one in kept)
