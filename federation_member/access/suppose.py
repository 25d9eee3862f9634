"""Somebody to ask about: what would be decided for a user of this name?

Nothing is signed and nobody is asked. It is supposed that the name's asserter vouches for the user, that the asserter is a known
member, and that the user has the roles that are told besides; a fedid that nobody told is made up from the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property

from federation_member.access.compile import Member, statements
from federation_member.access.decision import Decision, Held, Tried, decide, holds_nothing
from federation_member.access.errors import UnusablePolicy
from federation_member.access.model import Action
from federation_member.access.rules import Rules
from federation_member.access.verdict import OWN_USERS, lends
from federation_member.access.who import SELF, Reference, Who, asserter
from fedkit.errors import InputError
from fedkit.identity.keys import PublicKey, is_fedid
from fedkit.identity.names import Name, roles_of, split
from fedkit.identity.patterns import is_wild
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.policy.proof import Proof, Refusal
from fedkit.policy.prover import Prover

UNKNOWN = hashlib.sha1(b"this member", usedforsecurity=False).hexdigest()  # its fedid, where it does not matter
_FOREVER = datetime.max.replace(tzinfo=UTC)


class SupposedKey(PublicKey):
    """The key that a fedid has, as far as questions go: there is none, so it verifies nothing."""

    @cached_property
    def fedid(self) -> str:
        """The fedid that it stands for."""
        return self.spki.decode()

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Nothing was signed."""
        return False


@dataclass(frozen=True)
class Known:
    """A member, as far as rules look at it."""

    fedid: str
    address: str = ""


@dataclass(frozen=True)
class Somebody:
    """A supposed user, and what is supposed of them; `spoken` says what a person calls the made-up fedids."""

    name: Name
    principal: str
    asserter: Known
    says: tuple[Statement, ...]
    spoken: Mapping[str, str] = field(default_factory=dict)


class Supposition:
    """Answers what `rules` would decide; `own` is this member's fedid, `members` are those that are known."""

    def __init__(self, rules: Rules, own: str, members: Iterable[Member] = ()) -> None:
        self.rules = rules
        self.own = own
        self.members = tuple(Known(member.fedid, member.address) for member in members)
        self._prover_with = cache(self._make_prover)

    def somebody(self, who: str, has: Sequence[str] = ()) -> Somebody:
        """Suppose a user of the name `who`, whose first field may be an alias or an address, with roles besides."""
        try:
            return self._somebody(who, has)
        except InputError as error:
            raise UnusablePolicy(f"{who[:80]!r}: {error.message}") from error

    def decide(self, user: Somebody, action: Action, at: datetime, held: Held = holds_nothing) -> Decision:
        """What would be decided for this user; as the last rule, this member's own users need none."""
        prover = self._prover_with(user.asserter)
        extra = [supposed(statement) for statement in user.says]

        def prove(role: Role, subject: Entity, when: datetime, missing: bool = True) -> Proof | Refusal:
            return prover.prove(role, subject, when, extra, missing=missing)

        decision = decide(self.rules, self.own, prove, user.principal, action, at, held)
        if decision.allowed or user.asserter.fedid != self.own:
            return decision
        if any(one.theirs and lends(one.rule, action) for one in decision.tried):
            return decision
        goal = prove(Role(self.own, "user"), Entity(user.principal), at)
        return Decision((*decision.tried, Tried(OWN_USERS, None, goal)))

    def say(self, text: str, user: Somebody | None = None) -> str:
        """The text with names where fedids stand."""
        names = {member.fedid: member.address for member in self.members if member.address}
        names |= {fedid: alias for alias, fedid in self.rules.principals.items()} | {self.own: SELF}
        for fedid, spoken in {**names, **(user.spoken if user else {})}.items():
            text = text.replace(fedid, spoken)
        return text

    def _somebody(self, who: str, has: Sequence[str]) -> Somebody:
        parts = list(split(who))
        level = next((number for number, part in enumerate(parts) if part), 2)
        if is_wild(parts[level]):
            raise UnusablePolicy("somebody in particular has a whole name, without patterns.")
        vouching = self._member(asserter(parts[level], self.rules.principals))
        parts[level] = vouching.fedid
        name = Name(*parts)
        besides = [Who.parse(text, self.rules.principals).terms for text in has]
        references = [term for terms in besides for term in terms]
        principal = _principal(name, references)
        says = [Statement(Role(name.asserter, role), (Entity(principal),)) for role in roles_of(name)]
        says += [statement for reference in references for statement in self._has(reference, principal)]
        spoken = {principal: who} if principal != vouching.fedid else {}
        if vouching.address and vouching not in self.members:
            spoken[vouching.fedid] = vouching.address
        return Somebody(name, principal, vouching, tuple(says), spoken)

    def _member(self, named: str) -> Known:
        fedid = self.own if named == SELF else named
        for member in self.members:
            if named in (member.address, member.fedid) or member.fedid == fedid:
                return member
        return Known(fedid) if is_fedid(fedid) else Known(_made_up(named), named)

    def _has(self, reference: object, principal: str) -> list[Statement]:
        if not isinstance(reference, Reference):
            raise UnusablePolicy(
                f"{reference} is a pattern of names; what a user has besides are roles, as site-a.partner."
            )
        part = replace(reference, principal=self.own) if reference.principal == SELF else reference
        match part.roles:
            case (role,):
                return [Statement(Role(part.principal, role), (Entity(principal),))]
            case (via, role):
                between = Entity(_made_up(str(part)))
                return [
                    Statement(Role(part.principal, via), (between,)),
                    Statement(Role(between.fedid, role), (Entity(principal),)),
                ]
        return []

    def _make_prover(self, vouching: Known) -> Prover:
        members = self.members if vouching in self.members else (*self.members, vouching)
        return Prover([supposed(statement) for statement in statements(self.rules, self.own, members)])


def supposed(statement: Statement, issuer: PublicKey | None = None) -> Credential:
    """A credential that nobody has signed, for questions only; `issuer` where credentials of that key may come along."""
    key = issuer or SupposedKey(statement.head.principal.encode())
    return Credential(statement, key, _FOREVER, None, "supposed", b"")


def _principal(name: Name, references: Sequence[object]) -> str:
    """The user's own fedid: as the name or a bare reference tells it, else made up."""
    told = [ref.principal for ref in references if isinstance(ref, Reference) and not ref.roles]
    if told:
        return told[0]
    return name.user if is_fedid(name.user) else _made_up(str(name))


def _made_up(text: str) -> str:
    return hashlib.sha1(f"supposed {text}".encode(), usedforsecurity=False).hexdigest()
