"""A policy's own tests: does it decide as its `[[expect]]` say?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from federation_member.access.compile import Member
from federation_member.access.decision import Decision
from federation_member.access.errors import FailedExpectations, UnusablePolicy
from federation_member.access.rules import Expectation, Rules
from federation_member.access.suppose import Somebody, Supposition
from fedkit.policy.proof import Proof, Refusal

_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)  # for rules that lend at all hours


@dataclass(frozen=True)
class Outcome:
    """What one expectation (`number` from 1) came to; `told` says it to a person, line by line."""

    number: int
    expectation: Expectation
    decision: Decision
    told: str

    @property
    def good(self) -> bool:
        """Whether the policy decides as expected."""
        return bool(self.decision.allowed) == self.expectation.allowed


def outcomes(rules: Rules, own: str, members: Iterable[Member] = ()) -> list[Outcome]:
    """Look at every expectation; raise `UnusablePolicy` for one that cannot be looked at."""
    supposition = Supposition(rules, own, members)
    return [_outcome(supposition, number, one) for number, one in enumerate(rules.expectations, 1)]


def check(rules: Rules, own: str, members: Iterable[Member] = ()) -> int:
    """Return how many expectations there are; raise `FailedExpectations` that tells each that fails."""
    found = outcomes(rules, own, members)
    failed = [outcome for outcome in found if not outcome.good]
    if failed:
        raise FailedExpectations(
            f"{len(failed)} of {len(found)} expectations fail:\n" + "\n".join(outcome.told for outcome in failed),
            failed=[outcome.number for outcome in failed],
        )
    return len(found)


def _outcome(supposition: Supposition, number: int, one: Expectation) -> Outcome:
    try:
        at = _instant(supposition.rules, one)
        user = supposition.somebody(one.who, one.has)
    except UnusablePolicy as error:
        raise UnusablePolicy(f"expect {number}: {error.message}") from error
    decision = supposition.decide(user, one.action, at, lambda _rule: one.held)
    when = f" at {at.isoformat()}" if one.at else ""
    expected, decided = (("deny", "allow")[is_] for is_ in (one.allowed, bool(decision.allowed)))
    head = f"expect {number}: {one.who}, {one.action}{when}: expected {expected}, decided {decided}"
    return Outcome(
        number, one, decision, "\n".join([head, *(f"  {line}" for line in explain(supposition, user, decision))])
    )


def _instant(rules: Rules, one: Expectation) -> datetime:
    timed = [rule.name for rule in rules.rules if rule.hours]
    if one.at is None and timed:
        raise UnusablePolicy(f"say at = 2026-11-23T10:00:00Z or another time: rule {timed[0]} has hours.")
    return one.at or _ANY_TIME


def explain(supposition: Supposition, user: Somebody, decision: Decision) -> list[str]:
    """The decision in lines: the rule with its proof, or for each rule what keeps it from fitting."""
    lines = [decision.reason]
    if decision.allowed and isinstance(decision.allowed.answer, Proof):
        used = decision.allowed.answer.credentials
        return lines + [f"  {supposition.say(str(credential.statement), user)}" for credential in used]
    for one in decision.tried:
        mine = "for this user" if one.theirs else "not for this user"
        lines.append(f"rule {one.rule.name}: {mine}; {one.refusal or 'lends this'}")
        sets = one.answer.missing if isinstance(one.answer, Refusal) and not one.refusal else ()
        lines += [
            "  missing: " + " and ".join(sorted(supposition.say(str(one), user) for one in some)) for some in sets[:3]
        ]
    return lines
