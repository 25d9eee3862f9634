"""The prover: who has which role, by which credentials, and what is missing if not.

    prover = Prover(credentials)
    answer = prover.prove(role, Entity(fedid), now, extra=what_came_with_the_request)
    if answer.proved: answer.steps …  else: answer.missing …

It holds a standing set of credentials and answers by goal-directed search (`search.py`); `extra` credentials lie over the standing set
for one query and leave no trace. Proofs found are remembered. A remembered proof is never stale: credentials can only add to what is
provable, so it holds as long as each of its own does; their terms are looked at each time it is used, and whatever takes a
credential away (`remove`, `revoke`) empties the memory. Refusals are not remembered, as any credential could end them.

Every query has a budget of steps. One that takes them all is refused with `exhausted`, which is not a no.
All methods may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from fedkit.identity.keys import PublicKey
from fedkit.policy.errors import TwoKeys
from fedkit.policy.explore import what_could, who_could
from fedkit.policy.index import Index
from fedkit.policy.known import Budget, Goal, Known, OutOfBudgetError
from fedkit.policy.minimal import minimal
from fedkit.policy.missing import missing_sets
from fedkit.policy.model import Credential, Entity, Role, Subject
from fedkit.policy.proof import Proof, Refusal
from fedkit.policy.revocation import RevocationList, Revocations
from fedkit.policy.search import Search

BUDGET = 250_000  # steps of one query; about a second of work
REMEMBERED = 1024  # proofs
REMEMBERED_STEPS = 256  # of a proof; longer ones are found again each time

_NO_EXTRAS: frozenset[str] = frozenset()
_Key = tuple[Role, Subject, frozenset[str]]
_Found = TypeVar("_Found", Entity, Role)


@dataclass(frozen=True)
class Found(Generic[_Found]):
    """Everything that was found, sorted; `exhausted` says that there may be more, as the budget ended the search."""

    found: tuple[_Found, ...]
    exhausted: bool


class Prover:
    """Answers queries over a standing set of credentials; see above."""

    def __init__(self, credentials: Iterable[Credential] = (), budget: int = BUDGET) -> None:
        self._budget = budget
        self._standing = Index()
        self._keys: dict[str, PublicKey] = {}
        self._revocations = Revocations()
        self._remembered: dict[_Key, Proof] = {}
        self._lock = threading.Lock()
        for credential in credentials:
            self.add(credential)

    def __len__(self) -> int:
        return len(self._standing)

    def add(self, credential: Credential) -> bool:
        """Take `credential` into the standing set; return whether it was new.

        Raise `TwoKeys` if another key than its issuer's is known to have the issuer's fedid.
        """
        with self._lock:
            self._check_keys((credential,))
            self._keys.setdefault(credential.issuer.fedid, credential.issuer)
            return self._standing.add(credential)

    def remove(self, credential_id: str) -> bool:
        """Take a credential out of the standing set; return whether it was there."""
        with self._lock:
            self._remembered.clear()
            return self._standing.remove(credential_id)

    def revoke(self, listing: RevocationList) -> bool:
        """Let what `listing` names, of its own issuer, count no more, be it standing, added later or extra; return whether it was news."""
        with self._lock:
            self._remembered.clear()
            return self._revocations.note(listing)

    def prove(
        self, role: Role, subject: Subject, at: datetime, extra: Sequence[Credential] = (), *, missing: bool = True
    ) -> Proof | Refusal:
        """Prove at the instant `at` (with zone) that `subject`, an entity or all of a role, has `role`.

        `extra` counts for this query only. Without `missing` a refusal does not say what is missing, which costs much less.
        Raise `TwoKeys` if it has a key for a fedid that is known with another.
        """
        with self._lock:
            self._check_keys(extra)
            extras = frozenset(credential.id for credential in extra)
            return self._recall(role, subject, extras, at) or self._find(role, subject, extra, extras, at, missing)

    def who_has(self, role: Role, at: datetime, extra: Sequence[Credential] = ()) -> Found[Entity]:
        """Every principal that has `role`."""
        with self._lock:
            self._check_keys(extra)
            known = self._known(at, extra)
            return _select(known, lambda: map(Entity, who_could(known, role)), lambda entity: Goal(role, entity))

    def what_has(self, subject: Subject, at: datetime, extra: Sequence[Credential] = ()) -> Found[Role]:
        """Every role that `subject` has. Looks at all rules, so it costs more than a proof."""
        with self._lock:
            self._check_keys(extra)
            known = self._known(at, extra)
            return _select(known, lambda: what_could(known, subject), lambda role: Goal(role, subject))

    def _known(self, at: datetime, extra: Sequence[Credential]) -> Known:
        if not extra:
            return Known((self._standing,), at, self._revocations, Budget(self._budget))
        overlay = Index()
        for credential in extra:
            if credential.id not in self._standing:
                overlay.add(credential)
        return Known((self._standing, overlay), at, self._revocations, Budget(self._budget))

    def _find(
        self,
        role: Role,
        subject: Subject,
        extra: Sequence[Credential],
        extras: frozenset[str],
        at: datetime,
        missing: bool,
    ) -> Proof | Refusal:
        if role == subject:
            return Proof(role, subject, ())
        known = self._known(at, extra)
        search = Search(known)
        try:
            if not search.reaches(Goal(role, subject)):
                return Refusal(role, subject, missing_sets(known, role, subject) if missing else ())
        except OutOfBudgetError:
            return Refusal(role, subject, exhausted=True)
        proof = minimal(Proof(role, subject, search.steps(Goal(role, subject))), at, known.budget)
        self._remember(proof, extras)
        return proof

    def _recall(self, role: Role, subject: Subject, extras: frozenset[str], at: datetime) -> Proof | None:
        for key in ((role, subject, extras), (role, subject, _NO_EXTRAS)):
            proof = self._remembered.get(key)
            if proof is not None and proof.holds_at(at):
                return proof
        return None

    def _remember(self, proof: Proof, extras: frozenset[str]) -> None:
        if len(proof.steps) > REMEMBERED_STEPS:
            return
        if all(credential.id in self._standing for credential in proof.credentials):
            extras = _NO_EXTRAS
        self._remembered[proof.role, proof.subject, extras] = proof
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _check_keys(self, credentials: Sequence[Credential]) -> None:
        """Raise `TwoKeys` if two keys have the same fedid, among these and those that are known."""
        keys: dict[str, PublicKey] = {}
        for credential in credentials:
            key = credential.issuer
            known = self._keys.get(key.fedid) or keys.setdefault(key.fedid, key)
            if known.spki != key.spki:
                raise TwoKeys(
                    f"Two keys have the fedid {key.fedid}: {known.fingerprint} is known, {key.fingerprint} is new. "
                    "One of them was made to be taken for the other; ask their owners.",
                    fedid=key.fedid,
                )


def _select(known: Known, candidates: Callable[[], Iterable[_Found]], goal: Callable[[_Found], Goal]) -> Found[_Found]:
    """Those of `candidates` whose goal can be reached."""
    found: list[_Found] = []
    search = Search(known)
    try:
        for candidate in sorted(candidates()):
            if search.reaches(goal(candidate)):
                found.append(candidate)
    except OutOfBudgetError:
        return Found(tuple(found), exhausted=True)
    return Found(tuple(found), exhausted=False)
