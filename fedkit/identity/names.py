"""Three-level names: who somebody is, as far as somebody else vouches for it.

A name is `(testbed, project, user)`; any part may be blank, not all. The outermost part that is not blank is a fedid,
and whoever holds that key asserts the rest:

    (T, p, u)   testbed T says: user u, acting in project p          T is a fedid
    (T, , u)    testbed T says: user u, in no project
    ( , P, u)   project P says: its member u                         P is a fedid
    ( , , U)    a user on their own                                  U is a fedid

Written with slashes, `T/p/u`, so a blank part shows as nothing between two slashes (`T//u`, `//U`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedkit.errors import InputError
from fedkit.identity.keys import is_fedid

PART_LIMIT = 128  # characters
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")
_NOT_IN_ROLES = re.compile(r"[^A-Za-z0-9_-]|_(?=x)")
_ESCAPE = re.compile(r"_x([0-9a-f]{2})_")


class UnusableName(InputError):
    """A three-level name that cannot be used; the message says which part and why."""

    code = "identity.unusable_name"


@dataclass(frozen=True, order=True)
class Name:
    """A three-level name; construction checks it."""

    testbed: str = ""
    project: str = ""
    user: str = ""

    def __post_init__(self) -> None:
        for level, part in zip(("testbed", "project", "user"), self.parts, strict=True):
            if part and (len(part) > PART_LIMIT or not _PART.match(part)):
                raise UnusableName(
                    f"The {level} part of a name is at most {PART_LIMIT} letters, digits and _.@+- , "
                    f"and starts with a letter, digit or _; {part[:PART_LIMIT]!r} is not."
                )
        if not self.asserter:
            raise UnusableName("A name needs at least one part.")
        if not is_fedid(self.asserter):
            raise UnusableName(
                f"The outermost part of a name is a fedid, 40 lower-case hex digits; {self.asserter!r} is not."
            )

    @classmethod
    def parse(cls, text: str) -> Name:
        """Read `testbed/project/user`; raise `UnusableName` for anything else."""
        parts = text.split("/")
        if len(parts) != 3:
            raise UnusableName(
                f"A name is written testbed/project/user, blank parts staying empty; {text[:PART_LIMIT]!r} is not."
            )
        return cls(*parts)

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def parts(self) -> tuple[str, str, str]:
        """The three parts, outermost first."""
        return (self.testbed, self.project, self.user)

    @property
    def asserter(self) -> str:
        """The fedid that vouches for this name: its outermost part that is not blank."""
        return self.testbed or self.project or self.user

    def asserted_by(self, fedid: str) -> bool:
        """Tell whether the owner of `fedid` may speak this name."""
        return self.asserter == fedid


def role_part(name: str) -> str:
    """Write a local name such that it can be part of a role's name: what roles cannot hold becomes `_xHH_`.

    Different names give different texts; `of_role_part` is the inverse.
    """
    return _NOT_IN_ROLES.sub(lambda match: "".join(f"_x{octet:02x}_" for octet in match[0].encode()), name)


def of_role_part(text: str) -> str:
    """Read what `role_part` wrote; raise `UnusableName` for anything else."""
    octets = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text).encode("latin-1", errors="replace")
    name = octets.decode(errors="replace")
    if role_part(name) != text:
        raise UnusableName(f"{text[:PART_LIMIT]!r} does not stand for a name in a role.")
    return name
