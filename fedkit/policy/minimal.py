"""Proofs without a credential too many.

The search gives each goal the way by which it was reached first, so a proof seldom holds more than it needs; but it may: one credential may
show for two principals what two others were used for. What cannot be spared is told from the proof itself in one go; whether the few
others can is tried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from fedkit.policy.index import Index
from fedkit.policy.known import Budget, Goal, Known, OutOfBudgetError
from fedkit.policy.model import Credential, Entity, Linked, Role, Subject
from fedkit.policy.proof import Proof
from fedkit.policy.revocation import Revocations
from fedkit.policy.search import Search


def minimal(proof: Proof, at: datetime, budget: Budget) -> Proof:
    """Return a proof of the same by some of `proof`'s credentials, none of which can be spared.

    If `budget` ends first, what was reached so far: a proof still, perhaps with a credential too many.
    """
    try:
        for credential in perhaps_spare(proof):
            if credential in proof.credentials:
                others = (other for other in proof.credentials if other is not credential)
                proof = _prove(proof, others, at, budget) or proof
    except OutOfBudgetError:
        pass  # see above
    return proof


def _prove(proof: Proof, credentials: Iterable[Credential], at: datetime, budget: Budget) -> Proof | None:
    index = Index()
    for credential in credentials:
        budget.take()
        index.add(credential)
    goal = Goal(proof.role, proof.subject)
    search = Search(Known((index,), at, Revocations(), budget))
    return Proof(proof.role, proof.subject, search.steps(goal)) if search.reaches(goal) else None


def perhaps_spare(proof: Proof) -> list[Credential]:
    """The credentials of which the proof's form does not already show that nothing replaces them.

    From the conclusion downwards: where no other credential of the proof could give the same role to the same subject, the step's
    is needed, and so are the steps that it rests on, if linking could not have gone over another principal.
    """
    could_give = Counter(_gives(credential) for credential in proof.credentials)
    heads = {credential.statement.head for credential in proof.credentials} | {proof.subject}
    owners = Counter(head.name for head in heads if isinstance(head, Role))
    needed: set[str] = set()
    pending, seen = [len(proof.steps) - 1], set[int]()
    while pending:
        step = proof.steps[pending.pop()]
        if could_give[step.role, None] + could_give[step.role, step.subject] > 1:
            continue
        needed.add(step.credential.id)
        linked = [part.name for part in step.credential.statement.tail if isinstance(part, Linked)]
        if all(owners[name] == 1 for name in linked):
            pending.extend(index for index in step.because if index not in seen)
            seen.update(step.because)
    return [credential for credential in proof.credentials if credential.id not in needed]


def _gives(credential: Credential) -> tuple[Role, Subject | None]:
    """The role that it gives, and to whom if it is a fact."""
    match credential.statement.tail:
        case (Entity() as entity,):
            return credential.statement.head, entity
    return credential.statement.head, None
