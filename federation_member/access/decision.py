"""Decides by rules, for the controller and for everybody who asks what it would decide.

The first rule wins that admits the action and whose goal can be proved for the user. Where none does, the answer says what
came nearest: a rule that is for this user and lends something else, or nothing at this hour; otherwise the smallest sets of
credentials that would make a rule for this action the user's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from federation_member.access.model import Action
from federation_member.access.rules import Rule, Rules
from fedkit.policy.model import Entity, Role, Statement
from fedkit.policy.proof import Proof, Refusal

MISSING_LIMIT = 5  # sets that an answer tells

EXPLAINED = 16  # rules that say what they miss; finding that out costs much more than that they do

Prove = Callable[[Role, Entity, datetime, bool], Proof | Refusal]  # the last: whether a refusal says what is missing
Held = Callable[[Rule], int]


def holds_nothing(_rule: Rule) -> int:
    """For questions in which nothing is lent yet."""
    return 0


@dataclass(frozen=True)
class Tried:
    """One rule's answer: why it does not lend this (None: it does), and whether it is for this user."""

    rule: Rule
    refusal: str | None
    answer: Proof | Refusal | None  # None: not asked, because another rule decided

    @property
    def theirs(self) -> bool:
        """Whether the rule is for this user."""
        return self.answer is not None and self.answer.proved

    @property
    def fits(self) -> bool:
        """Whether the rule allows it."""
        return self.refusal is None and self.theirs


@dataclass(frozen=True)
class Decision:
    """What was decided and why; `tried` are the rules in their order, up to the one that allowed it."""

    tried: tuple[Tried, ...]

    @property
    def allowed(self) -> Tried | None:
        """The rule that allows it, with its proof."""
        return self.tried[-1] if self.tried and self.tried[-1].fits else None

    @property
    def missing(self) -> tuple[frozenset[Statement], ...]:
        """The smallest sets of statements that would make a rule for this action the user's; at most five."""
        found = {
            lacking
            for one in self.tried
            if one.refusal is None and isinstance(one.answer, Refusal)
            for lacking in one.answer.missing
        }
        return tuple(sorted(found, key=lambda lacking: (len(lacking), sorted(lacking)))[:MISSING_LIMIT])

    @property
    def reason(self) -> str:
        """One sentence for a person."""
        if self.allowed:
            return f"Rule {self.allowed.rule.name} allows it."
        nearest = [one.refusal for one in self.tried if one.refusal and one.theirs]
        if nearest:
            return nearest[0]
        admitting = [one for one in self.tried if one.refusal is None]
        if any(isinstance(one.answer, Refusal) and one.answer.exhausted for one in admitting):
            return "The credentials are too many or too tangled to be searched; bring only those that matter."
        if admitting:
            names = ", ".join(one.rule.name for one in admitting)
            return f"This is lent ({names}), but not to this user; see what is missing."
        return "No rule lends this to anybody now." if self.tried else "There are no rules: nothing is lent here."


def decide(rules: Rules, own: str, prove: Prove, user: str, action: Action, at: datetime, held: Held) -> Decision:
    """Decide whether `user` (a fedid) may do `action`; `own` is this member's fedid. Pure: no I/O but what is given."""

    def ask(rule: Rule, missing: bool) -> Proof | Refusal:
        return prove(Role(own, rule.role), Entity(user), at, missing)

    tried: list[Tried] = []
    for rule in rules.rules:
        refusal = rule.refusal(action, at, held(rule))
        tried.append(Tried(rule, refusal, ask(rule, missing=False) if refusal is None else None))
        if tried[-1].fits:
            return Decision(tuple(tried))
    # Only somebody who is refused costs the searches that tell what was missing, and which rules are theirs at all.
    explained = {one.rule.name for one in [one for one in tried if one.refusal is None][:EXPLAINED]}
    return Decision(tuple(replace(one, answer=ask(one.rule, one.rule.name in explained)) for one in tried))
