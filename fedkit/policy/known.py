"""What is said at one instant, as ways to reach a goal.

A goal is "subject S has role A.r", or "S is one of A.v.n". A rule's tail is a way that leads over a goal for each part. Linking is a way
for each principal D that says anything about its own role n that could matter to S: over "D has A.v" and "S has D.n", in this order,
because A's principals are fewer than those who merely have a role called n, and an adversary can make many of the latter.

Only credentials count that are within their term and not revoked. Credentials come from any number of indexes (what a prover holds, what
came with a request), so that asking with some more never copies or changes what is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from fedkit.policy.index import Index
from fedkit.policy.model import Credential, Entity, Linked, Role, Statement, Subject
from fedkit.policy.revocation import Revocations


class Goal(NamedTuple):
    """`subject` is one of `what`."""

    what: Role | Linked
    subject: Subject


class Way(NamedTuple):
    """The goals over which `credential` (None for linking) leads to another."""

    credential: Credential | None
    over: tuple[Goal, ...]


class OutOfBudgetError(Exception):
    """All steps are taken; never leaves this room."""


class Budget:
    """Steps that may still be taken: a goal opened, a way looked at, a conclusion passed on. Never time: equal queries cost the same."""

    __slots__ = ("left",)

    def __init__(self, steps: int) -> None:
        self.left = steps

    def take(self, steps: int = 1) -> None:
        """Raise `OutOfBudgetError` when not so many are left."""
        self.left -= steps
        if self.left < 0:
            raise OutOfBudgetError


class Known:
    """The credentials of `indexes` that hold at `at`; each look-up takes as many steps from `budget` as it finds credentials.

    `assumed` are facts taken as said (`A.r <- B` with an entity B), to ask what would be if they were.
    """

    def __init__(
        self,
        indexes: Sequence[Index],
        at: datetime,
        revocations: Revocations,
        budget: Budget,
        assumed: Iterable[Statement] = (),
    ) -> None:
        self.indexes = indexes
        self.budget = budget
        self._at = at
        self._revocations = revocations
        self._assumed = {(fact.head, fact.tail[0]) for fact in assumed}

    def with_budget(self, budget: Budget, assumed: Iterable[Statement] = ()) -> Known:
        """The same credentials, for another search."""
        return Known(self.indexes, self._at, self._revocations, budget, assumed)

    def ways(self, goal: Goal) -> Iterator[Way]:
        """Every way to reach `goal`, in an order that depends on nothing but what is known."""
        if isinstance(goal.what, Linked):
            return self._over_links(goal.what, goal.subject)
        return self._over_credentials(goal.what, goal.subject)

    def is_hopeless(self, goal: Goal) -> bool:
        """Tell at a glance that nothing said could ever lead to `goal`; False says nothing."""
        role, subject = goal
        if isinstance(role, Linked) or (self._assumed and (role, subject) in self._assumed):
            return False
        fedid = subject.fedid if isinstance(subject, Entity) else ""
        return not any(index.facts(role, fedid) or index.rules(role) for index in self.indexes)

    def middlemen(self, linked: Linked, subject: Subject) -> set[str]:
        """The principals D that say anything that could make `subject` one of `D.name`."""
        found: set[str] = set()
        for index in self.indexes:
            found.update(index.rules_named(linked.name))
            if isinstance(subject, Entity):
                found.update(index.facts_named(linked.name, subject.fedid))
        found.update(head.principal for head, whom in self._assumed if head.name == linked.name and whom == subject)
        if isinstance(subject, Role) and subject.name == linked.name:
            found.add(subject.principal)
        self.budget.take(len(found))
        return found

    def rules(self, role: Role) -> list[Credential]:
        """What `role` is defined through."""
        return self._holding([index.rules(role) for index in self.indexes])

    def facts(self, role: Role, fedid: str) -> list[Credential]:
        """What says that `fedid` has `role`."""
        return self._holding([index.facts(role, fedid) for index in self.indexes])

    def vouchers(self, fedid: str) -> set[str]:
        """The principals that give `fedid` any role. The work is charged, but never ends a search: it is needed to sort what was found."""
        found = {role.principal for index in self.indexes for role in index.known_to(fedid)}
        self.budget.left -= len(found)
        return found

    def _over_credentials(self, role: Role, subject: Subject) -> Iterator[Way]:
        if isinstance(subject, Entity):
            if (role, subject) in self._assumed:
                yield Way(None, ())
            for credential in self.facts(role, subject.fedid):
                yield Way(credential, ())
        for credential in self.rules(role):
            over = _over(credential.statement, subject)
            if over is not None:
                self.budget.take(len(over))
                yield Way(credential, over)

    def _over_links(self, linked: Linked, subject: Subject) -> Iterator[Way]:
        for principal in sorted(self.middlemen(linked, subject)):
            has_base = Goal(linked.base, Entity(principal))
            role = Role(principal, linked.name)
            yield Way(None, (has_base,) if role == subject else (has_base, Goal(role, subject)))

    def _holding(self, lists: Iterable[list[Credential]]) -> list[Credential]:
        """Those that count now, the longest-lived first (a proof is worth what its first credential to expire leaves it)."""
        found = [
            c for credentials in lists for c in credentials if c.holds_at(self._at) and not self._revocations.revokes(c)
        ]
        self.budget.take(len(found))
        if len(found) > 1:
            found.sort(key=lambda credential: (-credential.expires.timestamp(), credential.id))
        return found


def _over(rule: Statement, subject: Subject) -> tuple[Goal, ...] | None:
    """The goals that `rule` leads over for `subject`; None if it wants another entity."""
    over = []
    for part in rule.tail:
        if isinstance(part, Entity):
            if part != subject:
                return None
        elif part != subject:
            over.append(Goal(part, subject))
    return tuple(over)
