"""What a query answers: a proof that anybody can check again, or a refusal that says what is missing.

A proof is a flat list of steps, its conclusion last; each step says that a subject has a role, by which credential, and because of
which earlier steps. `Proof.check` shares nothing with the search that found it: it reads the credentials' statements as they stand
(Li, Mitchell, Winsborough 2002, §3) and trusts no index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from fedkit.errors import Exit, FedError
from fedkit.policy.model import Credential, Entity, Linked, Part, Role, Statement, Subject


class BadProof(FedError):
    """A proof that does not prove what it says; the message names the step."""

    code = "policy.bad_proof"
    http = 403
    exit = Exit.REFUSED


@dataclass(frozen=True, slots=True)
class Step:
    """`subject` has `role`, by `credential` and because of the steps with these indexes."""

    role: Role
    subject: Subject
    credential: Credential
    because: tuple[int, ...]


@dataclass(frozen=True)
class Proof:
    """`subject` has `role`: the last step says so. Without steps only that a role is contained in itself.

    Without any one of its credentials the others prove nothing (unless the search's budget was too small to see to that).
    """

    role: Role
    subject: Subject
    steps: tuple[Step, ...]
    proved: ClassVar[bool] = True

    @cached_property
    def credentials(self) -> tuple[Credential, ...]:
        """The credentials used, each once, in the order of the steps."""
        return tuple({step.credential.id: step.credential for step in self.steps}.values())

    @cached_property
    def expires(self) -> datetime | None:
        """When the first of its credentials expires; None without any."""
        return min((credential.expires for credential in self.credentials), default=None)

    def holds_at(self, at: datetime) -> bool:
        """Tell whether all its credentials are within their terms."""
        return all(credential.holds_at(at) for credential in self.credentials)

    def as_json(self) -> list[dict[str, Any]]:
        """The steps: `{"role", "subject", "statement", "credential": id, "expires", "because": [indexes of earlier steps]}`."""
        return [
            {
                "role": str(step.role),
                "subject": str(step.subject),
                "statement": str(step.credential.statement),
                "credential": step.credential.id,
                "expires": step.credential.expires.isoformat(),
                "because": list(step.because),
            }
            for step in self.steps
        ]

    def check(self, at: datetime) -> None:
        """Verify every step anew; raise `BadProof`. That signatures are right is whoever's who read the credentials."""
        for index, step in enumerate(self.steps):
            statement = step.credential.statement
            if statement.head != step.role or step.credential.issuer.fedid != step.role.principal:
                raise BadProof(f"Step {index} is about {step.role}, its credential says who has {statement.head}.")
            if not step.credential.holds_at(at):
                raise BadProof(f"Step {index} uses a credential that does not hold at {at.isoformat()}.")
            if not all(0 <= earlier < index for earlier in step.because):
                raise BadProof(f"Step {index} rests on a step that is not before it.")
            grounds = {(self.steps[i].role, self.steps[i].subject) for i in step.because}
            for part in statement.tail:
                if not _satisfied(part, step.subject, grounds):
                    raise BadProof(f"Step {index}: nothing shows that {step.subject} is {part}.")
        concluded = (self.steps[-1].role, self.steps[-1].subject) if self.steps else (self.role, self.role)
        if concluded != (self.role, self.subject):
            raise BadProof(f"The last step does not show that {self.subject} has {self.role}.")


@dataclass(frozen=True)
class Refusal:
    """`subject` is not shown to have `role`.

    `missing` are sets of statements, the smallest first, each of which would complete a proof, and no part of which would.
    `exhausted` says that the search ended at its budget: it is no answer, and nothing is said to be missing.
    """

    role: Role
    subject: Subject
    missing: tuple[frozenset[Statement], ...] = ()
    exhausted: bool = False
    proved: ClassVar[bool] = False

    def as_json(self) -> list[list[str]]:
        """The missing sets, each in the order of the statements' text."""
        return [sorted(map(str, statements)) for statements in self.missing]


def _satisfied(part: Part, subject: Subject, grounds: set[tuple[Role, Subject]]) -> bool:
    """Tell whether the steps' conclusions `grounds` make `subject` one of `part` (RT0: membership, containment, linking)."""
    if part == subject:
        return True
    match part:
        case Role():
            return (part, subject) in grounds
        case Linked():
            return any(
                Role(middle, part.name) == subject or (Role(middle, part.name), subject) in grounds
                for middle in _holders(part.base, grounds)
            )
    return False


def _holders(role: Role, grounds: set[tuple[Role, Subject]]) -> Iterator[str]:
    for held, subject in grounds:
        if held == role and isinstance(subject, Entity):
            yield subject.fedid
