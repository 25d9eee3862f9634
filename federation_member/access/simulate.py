"""What would a new policy have decided? It is tried on what the audit log holds.

Each decision is made again with what came with the request then, among the members of then, and with what the new policy
itself would have been lending by then: what it would have refused does not count, and what was given back is free again. What
was lent before the first entry looked at is not known to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from federation_member.access.compile import Member, statements
from federation_member.access.history import Event, GivenBack, Recorded
from federation_member.access.rules import Rules
from federation_member.access.suppose import supposed
from federation_member.access.verdict import Verdict, judge
from fedkit.identity.keys import PublicKey
from fedkit.policy.prover import Prover
from fedkit.policy.revocation import RevocationList


@dataclass(frozen=True)
class Change:
    """A decision that would have been another one; blank rules refuse."""

    recorded: Recorded
    verdict: Verdict

    @property
    def rule(self) -> str:
        """The rule that would have allowed it."""
        return self.verdict.rule.name if self.verdict.rule else ""

    def as_json(self) -> dict[str, Any]:
        """For people and programs."""
        then = self.recorded
        return {
            "entry": then.number,
            "at": then.at.isoformat(),
            "name": str(then.applicant.name),
            "member": then.applicant.member.address,
            "action": str(then.action),
            "was": {"result": _result(then.rule), "rule": then.rule, "reason": then.reason},
            "would_be": {"result": _result(self.rule), "rule": self.rule, "reason": self.verdict.reason},
        }


@dataclass(frozen=True)
class Simulation:
    """How many decisions were looked at, and which would have been others."""

    decisions: int
    changes: tuple[Change, ...]


def simulate(rules: Rules, own: PublicKey, events: Iterable[Event]) -> Simulation:
    """Try `rules` on what happened; `own` is this member's key."""
    decisions, changes = 0, []
    for one in _try(_World(rules, own), events):
        decisions += 1
        if one.rule != one.recorded.rule:
            changes.append(one)
    return Simulation(decisions, tuple(changes))


def _try(world: _World, events: Iterable[Event]) -> Iterator[Change]:
    lent: dict[str, str] = {}  # lease -> rule, had the new policy been in force
    for event in events:
        match event:
            case GivenBack(lease):
                lent.pop(lease, None)
            case RevocationList():
                world.revoke(event)
            case Recorded():
                verdict = world.judge(event, Counter(lent.values()))
                change = Change(event, verdict)
                # What was refused then was never lent, so nobody gave it back either.
                if change.rule and event.rule:
                    lent[event.lease] = change.rule
                yield change


class _World:
    """The new policy among the members of each time."""

    def __init__(self, rules: Rules, own: PublicKey) -> None:
        self._rules = rules
        self._own = own
        self._revoked: list[RevocationList] = []
        self._members: tuple[Member, ...] | None = None
        self._prover = Prover()

    def revoke(self, listing: RevocationList) -> None:
        self._revoked.append(listing)
        self._prover.revoke(listing)

    def judge(self, then: Recorded, held: Counter[str]) -> Verdict:
        if then.members != self._members:
            self._members = then.members
            said = statements(self._rules, self._own.fedid, then.members)
            self._prover = Prover(supposed(statement, self._own) for statement in said)
            for listing in self._revoked:
                self._prover.revoke(listing)
        own = self._own.fedid
        return judge(self._rules, self._prover, own, then.applicant, then.action, then.at, lambda rule: held[rule.name])


def _result(rule: str) -> str:
    return "allow" if rule else "deny"
