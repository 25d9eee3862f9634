"""Three-level names: who somebody is, as far as somebody else vouches for it.

A name is `(testbed, project, user)`; any part may be blank, not all. The outermost part that is not blank is a fedid,
and whoever holds that key asserts the rest:

    (T, p, u)   testbed T says: user u, acting in project p          T is a fedid
    (T, , u)    testbed T says: user u, in no project
    ( , P, u)   project P says: its member u                         P is a fedid
    ( , , U)    a user on their own                                  U is a fedid

Written with slashes, `T/p/u`, so a blank part shows as nothing between two slashes (`T//u`, `//U`). DETER's spelling is read
too: `(fedid:T, "p", "u")`, where `fedid:` marks a fedid and nothing else is one.

In ABAC the asserter says a name by roles that it gives the user's own fedid (`roles_of`); `role_part` writes local names,
which may hold more characters than roles, into roles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedkit.errors import InputError
from fedkit.identity.keys import is_fedid

PART_LIMIT = 128  # characters
TEXT_LIMIT = 4 * PART_LIMIT  # of a whole name, with its marks
_TRIPLE = re.compile(r"\s*\(([^()]*)\)\s*\Z")
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
        """Read `testbed/project/user` or `(testbed, project, user)`; raise `UnusableName` for anything else."""
        return cls(*split(text))

    def __str__(self) -> str:
        return "/".join(self.parts)

    def as_triple(self) -> str:
        """Write in DETER's spelling: `(fedid:T, "p", "u")`."""
        return f"({', '.join(_field(part) for part in self.parts)})"

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


def split(text: str) -> tuple[str, str, str]:
    """Split a name, or a pattern of names, in either spelling; the parts are not looked at further."""
    if text.lstrip().startswith("("):
        match = _TRIPLE.match(text) if len(text) <= TEXT_LIMIT else None
        parts = [_unquote(part) for part in match[1].split(",")] if match else []
    else:
        parts = text.split("/", 3)
    if len(parts) != 3:
        raise UnusableName(
            "A name is written testbed/project/user or (testbed, project, user), blank parts staying empty; "
            f"{text[:PART_LIMIT]!r} is not."
        )
    return (parts[0], parts[1], parts[2])


def _unquote(part: str) -> str:
    part = part.strip()
    if part.startswith("fedid:"):
        part = part.removeprefix("fedid:")
        if not is_fedid(part):
            raise UnusableName(f"After fedid: stand 40 lower-case hex digits; {part[:PART_LIMIT]!r} is not.")
        return part
    if len(part) >= 2 and part[0] == part[-1] == '"':
        part = part[1:-1]
    if is_fedid(part):
        raise UnusableName(f"In this spelling a fedid is written fedid:{part}; without it, it would be a local name.")
    return part


def _field(part: str) -> str:
    if is_fedid(part):
        return f"fedid:{part}"
    return f'"{part}"' if part else ""


def roles_of(name: Name) -> tuple[str, ...]:
    """The roles that the asserter gives a user to say this name, such as `user`, `project_p` and `user_u`.

    A project that asserts by itself gives other roles than a testbed does, so neither name is taken for the other. A name
    that ends with its asserter needs no roles: the key says it.
    """
    user = role_part(name.user)
    if name.testbed:
        project = f"project_{role_part(name.project)}" if name.project else "no_project"
        return ("user", project, f"user_{user}") if user else ()
    return ("of_project", f"of_project_{user}") if name.project and user else ()


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
