"""Whether somebody may have one more instance: who they are, for whom the asking member acts, and which rule lends it.

    1. the name's asserter is the member that asks, and says so of the user: A.user, A.project_p, A.user_u  <- U
    2. the user lets that member act:                                        U.acting_for <- A
    3. the first rule that lends the action, and is for the user:            B.rule_<name> <- U      (decision.py)

A member has no rights of its own here: all three are about the user U. Everything needed comes as an argument, so a decision can
be made again from the audit log. A refusal says what came nearest, and the smallest sets of statements that would do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from federation_member.access.decision import Decision, Held, decide
from federation_member.access.model import Action
from federation_member.access.rules import Rule, Rules
from fedkit.identity.keys import is_fedid
from fedkit.identity.names import Name, roles_of
from fedkit.mesh.api import Peer
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.policy.proof import Proof, Refusal
from fedkit.policy.prover import Prover

OWN_USERS = Rule("own users", (), ("*",))  # the last rule: a member's own users need none; no file can name one so
ACTING_FOR = "acting_for"
_ANY_TIME = datetime.max.replace(tzinfo=UTC)
SETS = 5  # of missing statements
SETS_SIZE = 16 * 1024  # characters of all of them

Answer = Proof | Refusal


@dataclass(frozen=True)
class Applicant:
    """Who asks: the member whose signature the request bears, for the user whom it names."""

    member: Peer
    name: Name
    principal: str
    credentials: tuple[Credential, ...]

    def as_json(self) -> dict[str, str]:
        """As the audit log tells it, without the credentials."""
        return {
            "member": self.member.fedid,
            "address": self.member.address,
            "name": str(self.name),
            "principal": self.principal,
        }


@dataclass(frozen=True)
class Verdict:
    """Lent under `rule` because of `proofs` (the rule's is the last), or refused for `reason`."""

    rule: Rule | None
    proofs: tuple[Proof, ...] = ()
    reason: str = ""
    missing: tuple[tuple[str, ...], ...] = ()

    @property
    def credentials(self) -> tuple[Credential, ...]:
        """All that the proofs rest on, each once."""
        return tuple({one.id: one for proof in self.proofs for one in proof.credentials}.values())

    def proof(self) -> dict[str, Any]:
        """Why it is lent, as JSON."""
        return {"rule": self.rule.name if self.rule else "", "proofs": [proof.as_json() for proof in self.proofs]}

    def as_json(self) -> dict[str, Any]:
        """As the audit log tells it."""
        if self.rule is None:
            return {"allowed": False, "reason": self.reason, "missing": [list(texts) for texts in self.missing]}
        return {"allowed": True, **self.proof()}


def judge(
    rules: Rules, prover: Prover, own: str, applicant: Applicant, action: Action, at: datetime, held: Held
) -> Verdict:
    """Return the verdict of the member `own`; raises `TwoKeys` for credentials of a forged issuer."""
    wrong = _unusable(applicant)
    if wrong is not None:
        return Verdict(None, reason=wrong)

    def prove(role: Role, subject: Entity, at: datetime, missing: bool = True) -> Answer:
        return prover.prove(role, subject, at, applicant.credentials, missing=missing)

    who = [prove(role, Entity(fedid), at) for role, fedid in _identity(applicant)]
    decision = decide(rules, own, prove, applicant.principal, action, at, held)
    allowed = decision.allowed
    if allowed is not None and isinstance(allowed.answer, Proof):
        return _lent(allowed.rule, who, allowed.answer, applicant)
    if applicant.member.fedid == own and not _limited(decision, action):
        goal = prove(Role(own, "user"), Entity(applicant.principal), at)
        return _lent(OWN_USERS, who, goal, applicant)
    return _refused(who, decision.reason, decision.missing, applicant)


def _unusable(applicant: Applicant) -> str | None:
    """Say why this name cannot be asked for by this member."""
    name = applicant.name
    if not name.asserted_by(applicant.member.fedid):
        return f"{applicant.member.address} cannot speak for {name}: only {name.asserter} vouches for that name."
    if not name.user:
        return f"{name} names no user, and everything is lent to users."
    if is_fedid(name.user) and name.user != applicant.principal:
        return f"{name} names the user {name.user}, and the request is for {applicant.principal}."
    return None


def _identity(applicant: Applicant) -> Iterable[tuple[Role, str]]:
    """What has to be shown of a name: each role, and who must have it."""
    for role in roles_of(applicant.name):
        yield Role(applicant.name.asserter, role), applicant.principal
    if applicant.principal != applicant.member.fedid:
        yield Role(applicant.principal, ACTING_FOR), applicant.member.fedid


def _limited(decision: Decision, action: Action) -> bool:
    """Tell whether a rule is for this user and lends this, only not now or not more: then it is meant for them."""
    return any(one.theirs and lends(one.rule, action) for one in decision.tried)


def lends(rule: Rule, action: Action) -> bool:
    """Tell whether `rule` lends this at some time to somebody, however much it lends already."""
    return replace(rule, hours=None, count=None).refusal(action, _ANY_TIME, 0) is None


def _lent(rule: Rule, who: list[Answer], goal: Answer, applicant: Applicant) -> Verdict:
    proofs = tuple(answer for answer in (*who, goal) if isinstance(answer, Proof))
    if len(proofs) == len(who) + 1:
        return Verdict(rule, proofs)
    return _refused([*who, goal], "", (), applicant)


def _refused(who: list[Answer], reason: str, missing: Iterable[frozenset[Statement]], applicant: Applicant) -> Verdict:
    """Say no; whatever else is missing, what shows the name is missing as well."""
    unshown = [answer for answer in who if isinstance(answer, Refusal)]
    base = frozenset[Statement]().union(*(answer.missing[0] for answer in unshown if answer.missing))
    texts = _told([base | more for more in missing] or [base])
    if unshown:
        reason = f"Nothing shows that {applicant.member.address} asks for {applicant.name}. {reason}"
    if texts:
        reason = f"{reason.strip()} It would do to show: {'; '.join(texts[0])}."
    return Verdict(None, reason=reason.strip(), missing=texts)


def _told(missing: Iterable[frozenset[Statement]]) -> tuple[tuple[str, ...], ...]:
    """The sets as texts, the smallest first, within what may be told."""
    texts = {tuple(sorted(map(str, statements))) for statements in missing if statements}
    told: list[tuple[str, ...]] = []
    room = SETS_SIZE
    for one in sorted(texts, key=lambda one: (len(one), one))[:SETS]:
        room -= sum(map(len, one))
        if room >= 0:
            told.append(one)
    return tuple(told)
