"""Who a rule is for: a line of `who`, as a person writes it.

    site-a/proj1/*              three-level pattern; the first field is an alias of [principals], a fedid, an address, `*` or `self`
    site-a.partner              everybody to whom site-a gives the role
    acme.preferred.customer     everybody to whom somebody gives `customer` whom acme calls `preferred`
    alice                       this very principal
    site-a/*/* & acme.partner   both

What is not about names but about who says so is RT0 already (fedkit/policy/model.py); patterns are compiled to it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from federation_member.access.errors import UnusablePolicy
from fedkit.errors import InputError
from fedkit.identity.keys import is_fedid
from fedkit.identity.patterns import NamePattern, is_wild
from fedkit.policy.model import Entity, Linked, Part, Role

SELF = "self"  # this member, whose fedid is known only when the policy is compiled
LIMIT = 2048  # characters of one line
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True)
class Reference:
    """A principal and up to two roles behind it; the principal is a fedid or `self`."""

    principal: str
    roles: tuple[str, ...] = ()

    def part(self, own: str) -> Part:
        """The same in RT0, `own` being this member's fedid."""
        principal = own if self.principal == SELF else self.principal
        match self.roles:
            case ():
                return Entity(principal)
            case (role,):
                return Role(principal, role)
        return Linked(principal, *self.roles)

    def __str__(self) -> str:
        return ".".join((self.principal, *self.roles))


Term = NamePattern | Reference


@dataclass(frozen=True)
class Who:
    """One line: all terms have to hold. `text` is what the operator wrote."""

    terms: tuple[Term, ...]
    text: str

    @classmethod
    def parse(cls, text: str, principals: Mapping[str, str]) -> Who:
        """Read a line; `principals` maps aliases to fedids. Raises `UnusablePolicy`."""
        if len(text) > LIMIT:
            raise UnusablePolicy(f"A line of who has at most {LIMIT} characters; this one has {len(text)}.")
        try:
            return cls(tuple(_term(term.strip(), principals) for term in text.split("&")), text)
        except UnusablePolicy:
            raise
        except InputError as error:
            raise UnusablePolicy(f"{text[:80]!r} says nobody: {error.message}") from error


def _term(text: str, principals: Mapping[str, str]) -> Term:
    if "/" in text or text.startswith("("):
        pattern = NamePattern.parse(text)
        level = ("testbed", "project", "user")[pattern.level]
        return replace(pattern, **{level: asserter(pattern.asserter, principals)})
    principal, *roles = text.split(".")
    if len(roles) > 2 or not all(_ROLE.match(role) for role in roles):
        raise UnusablePolicy(
            f"{text[:80]!r} is neither a role such as site-a.partner nor a pattern of names such as site-a/proj1/*."
        )
    return Reference(known(principal, principals), tuple(roles))


def asserter(text: str, principals: Mapping[str, str]) -> str:
    """The fedid of an alias; addresses and patterns of them stay as they are."""
    return text if "." in text or is_wild(text) else known(text, principals)


def known(text: str, principals: Mapping[str, str]) -> str:
    """The fedid of an alias, or `self`; raise `UnusablePolicy` with the nearest alias."""
    if text == SELF or is_fedid(text):
        return text
    if text in principals:
        return principals[text]
    near = difflib.get_close_matches(text, [*principals, SELF], 1)
    hint = f"did you mean {near[0]}?" if near else f'say who it is: {text[:80] or "name"} = "<fedid>" in [principals]'
    raise UnusablePolicy(f"Nobody is called {text[:80]!r} here; {hint}")
