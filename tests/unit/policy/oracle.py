"""What RT0 says, computed as naively as it is defined: all memberships, until nothing is added."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from fedkit.policy.model import Credential, Entity, Linked, Part, Role, Statement, Subject

Facts = set[tuple[Role, Subject]]


def universe(statements: Iterable[Statement]) -> set[Subject]:
    """Every entity and role that the statements name."""
    found: set[Subject] = set()
    for statement in statements:
        found.add(statement.head)
        found.update(Entity(principal) for principal in statement.principals())
        for part in statement.tail:
            found.add(part.base if isinstance(part, Linked) else part)
    return found


def memberships(known: Iterable[Credential], at: datetime, also: Iterable[Subject] = ()) -> Facts:
    """Who has which role, and which role is contained in which, among all that is named."""
    said = [credential.statement for credential in known if credential.holds_at(at)]
    subjects = universe(said) | set(also)
    facts: Facts = {(subject, subject) for subject in subjects if isinstance(subject, Role)}
    while True:
        new = {
            (statement.head, subject)
            for statement in said
            for subject in subjects
            if all(_is(subject, part, facts) for part in statement.tail)
        }
        if new <= facts:
            return facts
        facts |= new


def _is(subject: Subject, part: Part, facts: Facts) -> bool:
    if isinstance(part, Entity):
        return subject == part
    if isinstance(part, Role):
        return (part, subject) in facts
    middle = {whom.fedid for role, whom in facts if role == part.base and isinstance(whom, Entity)}
    return any((Role(fedid, part.name), subject) in facts or Role(fedid, part.name) == subject for fedid in middle)
