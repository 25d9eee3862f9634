"""What an operator may ask of a policy, answered for people and programs alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from federation_member.access.decision import Decision
from federation_member.access.errors import UnusablePolicy
from federation_member.access.expectations import explain
from federation_member.access.grants import action_json
from federation_member.access.model import KINDS, Action
from federation_member.access.rules import Rule, Rules
from federation_member.access.suppose import Somebody, Supposition
from fedkit.policy.proof import Proof

FIELDS = ("flavour", "node_type", "image", "service")


def action_of(words: Iterable[str]) -> Action:
    """Read an action as it is written on a command line: `compute flavour=small service=SMB`."""
    kind, *rest = [*words] or [""]
    if kind not in KINDS:
        raise UnusablePolicy(f"An action begins with its kind, one of {', '.join(KINDS)}; {kind[:80]!r} is none.")
    said: dict[str, str] = {}
    services: list[str] = []
    for word in rest:
        field, equals, value = word.partition("=")
        if not equals or field not in FIELDS:
            near = difflib.get_close_matches(field, FIELDS, 1)
            hint = f"did you mean {near[0]}=?" if near else f"known are {', '.join(f'{name}=' for name in FIELDS)}"
            raise UnusablePolicy(f"{word[:80]!r} says nothing about an action; {hint}")
        if field == "service":
            services.append(value)
        elif field in said:
            raise UnusablePolicy(f"The action has two of {field}.")
        else:
            said[field] = value
    return Action(kind, services=tuple(services), **said)


def why_not(supposition: Supposition, user: Somebody, action: Action, at: datetime) -> dict[str, Any]:
    """What would be decided for somebody, by which rule and proof, or what each rule lacks."""
    decision = supposition.decide(user, action, at)
    allowed = decision.allowed
    proof = allowed.answer if allowed else None
    return {
        "name": str(user.name),
        "action": action_json(action),
        "at": at.isoformat(),
        "allowed": allowed is not None,
        "rule": allowed.rule.name if allowed else "",
        "account": allowed.rule.account.account_of(user.name) if allowed else "",
        "reason": decision.reason,
        "proof": proof.as_json() if isinstance(proof, Proof) else [],
        "missing": _missing(supposition, user, decision),
        "rules": [
            {"rule": one.rule.name, "for_this_user": one.theirs, "refusal": one.refusal or ""} for one in decision.tried
        ],
        "explanation": explain(supposition, user, decision),
    }


def _missing(supposition: Supposition, user: Somebody, decision: Decision) -> list[list[str]]:
    return [sorted(supposition.say(str(one), user) for one in some) for some in decision.missing]


def who_could(rules: Rules, action: Action, at: datetime) -> list[dict[str, Any]]:
    """For each rule that lends this at all: to whom, in which account, and what keeps it from doing so at this time."""
    return [
        {
            "rule": rule.name,
            "who": [who.text for who in rule.who],
            "account": account_text(rule),
            "count": rule.count,
            "hours": rule.hours.text if rule.hours else "",
            "now": rule.refusal(action, at, 0) is None,
        }
        for rule in rules.rules
        if rule.unfit(action) is None
    ]


def account_text(rule: Rule) -> str:
    """A rule's account as it stands in the file."""
    how, text = rule.account.how, rule.account.text
    return text if how == "name" else f"{{{how} = {text}}}"


def checked(supposition: Supposition, statements: Iterable[object], outcomes: Iterable[Any]) -> Mapping[str, Any]:
    """A policy's own tests and what it was compiled to."""
    return {
        "version": supposition.rules.version,
        "rules": [rule.name for rule in supposition.rules.rules],
        "statements": [supposition.say(str(statement)) for statement in statements],
        "expectations": [
            {
                "number": one.number,
                "who": one.expectation.who,
                "action": str(one.expectation.action),
                "expected": "allow" if one.expectation.allowed else "deny",
                "decided": "allow" if one.decision.allowed else "deny",
                "rule": one.decision.allowed.rule.name if one.decision.allowed else "",
                "good": one.good,
            }
            for one in outcomes
        ],
    }
