"""Who may have what of this member: the operator's short list of rules, `[[lend]]` in `member.toml`.

The first rule that fits a request decides: how many instances may exist under it, and which local account they run under.
A borrower is known by what its signature proves (fedid) and by the address that is pinned to it, never by the name it gives
itself. This member's own users need no rule to use their own middleware; a rule that fits them limits them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from federation_member.config import Lend
from federation_member.errors import NotAllowed
from federation_member.middleware.contract import Account

OWN_ACCOUNT = Account("federation")


@dataclass(frozen=True)
class Applicant:
    """Who asks for what: the three-level name is (borrower, project, user)."""

    fedid: str
    address: str
    project: str
    user: str
    kind: str


Held = Callable[[], Mapping[Applicant, int]]


class Access(Protocol):
    """Decides whether somebody may have one more instance; called inside a transaction, must not block."""

    def decide(self, applicant: Applicant, held: Held) -> Account:
        """Return the local account to use, or raise `NotAllowed`; `held` counts what exists, by applicant."""


class AllowList:
    """Decides by rules; `own` is this member's fedid."""

    def __init__(self, rules: Sequence[Lend], own: str) -> None:
        self._rules = tuple(rules)
        self._own = own

    def decide(self, applicant: Applicant, held: Held) -> Account:
        """See `Access`."""
        for rule in self._rules:
            if _first_mismatch(rule, applicant) is None:
                self._check_number(rule, held)
                return Account(rule.account)
        if applicant.fedid == self._own:
            return OWN_ACCOUNT
        raise NotAllowed(f"{self._missing(applicant)} Ask this site's operator for a [[lend]] rule.")

    @staticmethod
    def _check_number(rule: Lend, held: Held) -> None:
        number = sum(count for other, count in held().items() if _first_mismatch(rule, other) is None)
        if number >= rule.instances:
            raise NotAllowed(
                f"The rule that fits lends {rule.instances} instances at a time, and {number} exist.",
                limit=rule.instances,
            )

    def _missing(self, applicant: Applicant) -> str:
        """Say what keeps the rule that comes nearest from fitting."""
        nearest = max((_first_mismatch(rule, applicant) or "" for rule in self._rules), key=_ORDER.index, default="")
        who = {
            "": "Nothing is lent here.",
            "members": f"No rule lends to {applicant.address} ({applicant.fedid}).",
            "projects": f"No rule lends to project {applicant.project!r} of {applicant.address}.",
            "users": f"No rule lends to user {applicant.user!r} of {applicant.address}.",
            "kinds": f"No rule lends the kind {applicant.kind} to {applicant.user!r} of {applicant.address}.",
        }
        return who[nearest]


_ORDER = ("", "members", "projects", "users", "kinds")


def _first_mismatch(rule: Lend, applicant: Applicant) -> str | None:
    """Name the first condition of `rule` that `applicant` does not meet."""
    conditions = (
        ("members", rule.members, (applicant.fedid, applicant.address)),
        ("projects", rule.projects, (applicant.project,)),
        ("users", rule.users, (applicant.user,)),
        ("kinds", rule.kinds, (applicant.kind,)),
    )
    for name, patterns, values in conditions:
        if not any(fnmatchcase(value, pattern) for pattern in patterns for value in values):
            return name
    return None
