"""From rules to credentials: what this member says of whom, in RT0, signed with its key.

    who                          compiled (B is this member, R the rule's role)
    A/p/u                        B.R <- A.project_p & A.user_u          inner fedid U as user: ... & U
    A/p/*   A/*/u   A/*/*        B.R <- A.project_p     B.R <- A.user_u     B.R <- A.user
    A//u    A//*                 B.R <- A.no_project & A.user_u             B.R <- A.no_project
    /P/u    /P/*                 B.R <- P.of_project_u                      B.R <- P.of_project
    //U                          B.R <- U
    */p/*                        B.R <- B.member.project_p              B.member <- M for every known member
    *.edu/p/*                    B.R <- B.testbed_<*.edu>.project_p     B.testbed_<*.edu> <- M whose address matches
    */p/u                        B.R <- M.project_p & M.user_u          for every M: linking would mix what two members say
    X & Y                        every way to have X with every way to have Y

RT0 has no patterns of roles' names, so a wild card within a project or user is refused: somebody has to say who is meant.
The same rules and members give the same statements in the same order. A credential holds for `TERM`; compile again when the
member starts and whenever the members change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice, product
from typing import Protocol

from federation_member.access.errors import UnusablePolicy
from federation_member.access.rules import Rules
from federation_member.access.who import SELF, Term, Who
from fedkit.errors import InputError
from fedkit.identity.keys import PrivateKey, is_fedid
from fedkit.identity.names import role_part
from fedkit.identity.patterns import ANY, NamePattern, is_wild
from fedkit.policy.compact import issue
from fedkit.policy.model import Credential, Entity, Linked, Part, Role, Statement

TERM = timedelta(days=366)
STATEMENTS_LIMIT = 20_000
MEMBER = "member"

Tail = tuple[Part, ...]


class Member(Protocol):
    """A member of the federation, as far as a policy looks at it."""

    @property
    def fedid(self) -> str:
        """Its identity."""

    @property
    def address(self) -> str:
        """Its address in the mesh."""


def compile(rules: Rules, key: PrivateKey, members: Iterable[Member], at: datetime) -> list[Credential]:  # noqa: A001 - what it does
    """Sign what `statements` says, with this member's key, for `TERM` from `at`."""
    return [issue(key, statement, at + TERM) for statement in statements(rules, key.fedid, members)]


def statements(rules: Rules, own: str, members: Iterable[Member]) -> list[Statement]:
    """What this member (`own`) says by its rules, each once; raise `UnusablePolicy` for what RT0 cannot say.

    `members` are all that are known; whether this member is among them decides whether `*` includes its own users.
    """
    compiler = _Compiler(own, sorted(members, key=lambda member: (member.fedid, member.address)))
    said = list(dict.fromkeys(islice(compiler.everything(rules), STATEMENTS_LIMIT + 1)))
    if len(said) > STATEMENTS_LIMIT:
        raise UnusablePolicy(f"The rules need more than {STATEMENTS_LIMIT} statements; give roles instead of names.")
    return said


def testbed_role(pattern: str) -> str:
    """The role of the members whose address matches `pattern`."""
    return MEMBER if pattern == ANY else f"testbed_{role_part(pattern)}"


class _Compiler:
    def __init__(self, own: str, members: Sequence[Member]) -> None:
        self._own = own
        self._members = members

    def everything(self, rules: Rules) -> Iterator[Statement]:
        for name, lines in rules.roles.items():
            yield from self._role(name, lines, f"roles.{name}")
        for rule in rules.rules:
            yield from self._role(rule.role, rule.who, f"rule {rule.name}")
        for pattern in dict.fromkeys([ANY, *_wild_asserters(rules)]):
            role = Role(self._own, testbed_role(pattern))
            yield from (Statement(role, (Entity(member.fedid),)) for member in self._matching(pattern))

    def _role(self, role: str, lines: Sequence[Who], place: str) -> Iterator[Statement]:
        for who in lines:
            try:
                for tails in product(*(self._tails(term) for term in who.terms)):
                    tail = tuple(dict.fromkeys(part for tail in tails for part in tail))
                    yield Statement(Role(self._own, role), tail)
            except InputError as error:
                raise UnusablePolicy(f"{place}: {who.text}: {error.message}") from error

    def _tails(self, term: Term) -> list[Tail]:
        """The ways to meet one term."""
        if not isinstance(term, NamePattern):
            return [(term.part(self._own),)]
        roles, themselves = _inner(term)
        asserter = self._own if term.asserter == SELF else term.asserter
        if term.level == 2:
            return [(Entity(_one_key(asserter)),)]
        if is_fedid(asserter):
            return [(*(Role(asserter, role) for role in roles), *themselves)]
        if len(roles) == 1:
            return [(Linked(self._own, testbed_role(asserter), roles[0]), *themselves)]
        return [(*(Role(member.fedid, role) for role in roles), *themselves) for member in self._matching(asserter)]

    def _matching(self, pattern: str) -> Iterator[Member]:
        return (member for member in self._members if pattern == ANY or fnmatchcase(member.address, pattern))


def _inner(pattern: NamePattern) -> tuple[list[str], Tail]:
    """The roles that the asserter must give, and who the user must be if the pattern names their key."""
    project, user = pattern.project, pattern.user
    if pattern.level == 2:
        return [], ()
    if not user:
        raise UnusablePolicy("every request comes from a user; write * where any user is meant")
    _exact(user, "user")
    themselves = (Entity(user),) if is_fedid(user) else ()
    if pattern.level == 1:
        return ["of_project" if user == ANY else f"of_project_{role_part(user)}"], themselves
    _exact(project, "project")
    roles = [] if project == ANY else [f"project_{role_part(project)}" if project else "no_project"]
    roles += [] if user == ANY else [f"user_{role_part(user)}"]
    return roles or ["user"], themselves


def _exact(part: str, what: str) -> None:
    if part != ANY and is_wild(part):
        raise UnusablePolicy(
            f"{part} would match names, and credentials can only be asked for by their whole name; write each {what}, "
            f"or * for all, or let the asserter give them a role, such as site-a.{what}s"
        )


def _one_key(user: str) -> str:
    if not is_fedid(user):
        raise UnusablePolicy("who vouches for themselves is named by fedid or alias, one line for each")
    return user


def _wild_asserters(rules: Rules) -> Iterator[str]:
    lines = [*rules.roles.values(), *(rule.who for rule in rules.rules)]
    terms = (term for some in lines for who in some for term in who.terms)
    for term in terms:
        if isinstance(term, NamePattern) and term.level < 2 and term.asserter != SELF and not is_fedid(term.asserter):
            yield term.asserter
