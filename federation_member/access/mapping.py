"""Which of our rules would lend somebody a machine, and so whose account theirs would be; asked without lending anything.

How many a rule lends and at what hours is left out: who holds all that a rule lends still has their account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from federation_member.access.model import Action
from federation_member.access.rules import ANYTHING, Rule, Rules, allows

MACHINE = Action("compute")


def lending_machines(rules: Rules, flavours: Sequence[str], images: Sequence[str]) -> Rules:
    """Those rules that lend some machine of these, each made to lend `MACHINE` at any time."""
    return replace(rules, rules=tuple(_always(rule) for rule in rules.rules if _lends_one(rule, flavours, images)))


def _lends_one(rule: Rule, flavours: Sequence[str], images: Sequence[str]) -> bool:
    return (
        allows(rule.may, MACHINE.kind)
        and allows(rule.node_types, MACHINE.node_type)
        and any(allows(rule.flavours, flavour) for flavour in flavours)
        and any(allows(rule.images, image) for image in images)
    )


def _always(rule: Rule) -> Rule:
    return replace(
        rule,
        may=(MACHINE.kind,),
        flavours=ANYTHING,
        node_types=ANYTHING,
        images=ANYTHING,
        services=ANYTHING,
        count=None,
        hours=None,
    )
