"""What a policy says, as the rest of the member uses it: rules that admit an action or tell why not.

A rule has two halves. Who it is for is compiled to credentials (compile.py) and proved; what it lends, and when, is looked
at here. The first rule that admits the action, and whose goal `rule_<name>` can be proved for the user, decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase

from federation_member.access.hours import Hours
from federation_member.access.model import MACHINES, AccountMapping, Action
from federation_member.access.who import Who

ANYTHING = ("*",)


@dataclass(frozen=True)
class Rule:
    """One rule; lists hold patterns as in a shell, `!pattern` taking away, and an empty list admits nothing."""

    name: str
    who: tuple[Who, ...]
    may: tuple[str, ...]
    flavours: tuple[str, ...] = ANYTHING
    node_types: tuple[str, ...] = ANYTHING
    images: tuple[str, ...] = ANYTHING
    services: tuple[str, ...] = ANYTHING
    count: int | None = None
    hours: Hours | None = None
    account: AccountMapping = field(default_factory=AccountMapping)

    @property
    def role(self) -> str:
        """The role of this member that the rule's people have."""
        return f"rule_{self.name}"

    def refusal(self, action: Action, at: datetime, held: int) -> str | None:
        """Say why this rule does not lend `action` now, to whomever; None if it does. `held` is what it lends already."""
        return self.unfit(action) or self._closed(at) or self._full(held)

    def unfit(self, action: Action) -> str | None:
        """Say why this rule never lends `action`; None if it does, at its hours and as far as its count goes."""
        wanted = [("kind", self.may, action.kind), *(("service", self.services, name) for name in action.services)]
        if action.kind in MACHINES:
            wanted += [
                ("flavour", self.flavours, action.flavour),
                ("node type", self.node_types, action.node_type),
                ("image", self.images, action.image),
            ]
        for what, patterns, value in wanted:
            if not allows(patterns, value):
                lent = ", ".join(patterns) or "none"
                return f"Rule {self.name} lends the {what} {lent}, not {value or 'one without a name'}."
        return None

    def _closed(self, at: datetime) -> str | None:
        if self.hours is None or self.hours.admits(at):
            return None
        return f"Rule {self.name} lends only {self.hours.text}; there it is {self.hours.clock(at)}."

    def _full(self, held: int) -> str | None:
        if self.count is None or held < self.count:
            return None
        return f"Rule {self.name} lends {self.count} at the same time, and {held} exist."


@dataclass(frozen=True)
class Expectation:
    """One test of the policy: what it has to decide for somebody. `who` is a three-level name; `has` are roles besides."""

    who: str
    action: Action
    allowed: bool
    at: datetime | None = None
    held: int = 0
    has: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rules:
    """A whole policy. `version` names its text: equal texts are one version."""

    principals: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, tuple[Who, ...]] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    expectations: tuple[Expectation, ...] = ()
    version: str = ""

    def rule(self, name: str) -> Rule | None:
        """The rule of this name."""
        return next((rule for rule in self.rules if rule.name == name), None)


def allows(patterns: tuple[str, ...], value: str) -> bool:
    """Tell whether a list of patterns admits a value; what only takes away takes away from everything."""
    taken = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    given = [pattern for pattern in patterns if not pattern.startswith("!")]
    if any(fnmatchcase(value, pattern) for pattern in taken):
        return False
    return any(fnmatchcase(value, pattern) for pattern in given) or (bool(taken) and not given)
