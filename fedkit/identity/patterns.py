"""Patterns of three-level names: `site-a/proj1/*`, `fm.*.edu//*`.

A pattern has a name's three fields, in either spelling, each blank or a pattern as in a shell (`*`, `?`, `[a-z]`). Its first
field that is not blank stands for the asserter, so it matches only names asserted at the same level: `*/*/*` are the users
of all testbeds, `/*/*` those of projects that stand by themselves, `//*` everybody who speaks for themselves. Behind the
asserter `*` stands for anything, a blank too; a blank stands for a blank.

The asserter is a fedid, which no person remembers; so its field also matches what else it is known as (its address).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fedkit.identity.names import PART_LIMIT, Name, UnusableName, split

ASSERTER_LIMIT = 253  # characters: an address
ANY = "*"
_FIELD = re.compile(r"[A-Za-z0-9_.@+*?!\[\]-]*\Z")


@dataclass(frozen=True, order=True)
class NamePattern:
    """A pattern of names; construction checks it."""

    testbed: str = ""
    project: str = ""
    user: str = ""

    def __post_init__(self) -> None:
        if not any(self.parts):
            raise UnusableName("A pattern of names needs at least one part that is not blank; * stands for anything.")
        for number, part in enumerate(self.parts):
            limit = ASSERTER_LIMIT if number == self.level else PART_LIMIT
            if len(part) > limit or not _FIELD.match(part):
                raise UnusableName(
                    f"A part of a pattern is at most {limit} letters, digits, _.@+- and *?[]!; "
                    f"{part[:PART_LIMIT]!r} is not."
                )

    @classmethod
    def parse(cls, text: str) -> NamePattern:
        """Read `testbed/project/user` or `(testbed, project, user)`; raise `UnusableName` for anything else."""
        return cls(*split(text))

    @classmethod
    def exactly(cls, name: Name) -> NamePattern:
        """The pattern that matches this name and no other; names hold no character that a pattern reads otherwise."""
        return cls(*name.parts)

    def __str__(self) -> str:
        return "/".join(self.parts)

    @property
    def parts(self) -> tuple[str, str, str]:
        """The three parts, outermost first."""
        return (self.testbed, self.project, self.user)

    @property
    def level(self) -> int:
        """Which part stands for the asserter: 0 the testbed, 1 the project, 2 the user."""
        return next(number for number, part in enumerate(self.parts) if part)

    @property
    def asserter(self) -> str:
        """The pattern of who vouches."""
        return self.parts[self.level]

    def matches(self, name: Name, known_as: Collection[str] = ()) -> bool:
        """Tell whether `name` fits; `known_as` are other names of its asserter, such as its address."""
        level = next(number for number, part in enumerate(name.parts) if part)
        if level != self.level:
            return False
        inner = zip(name.parts[level + 1 :], self.parts[level + 1 :], strict=True)
        return any(fnmatchcase(known, self.asserter) for known in (name.asserter, *known_as)) and all(
            fnmatchcase(part, pattern) for part, pattern in inner
        )


def is_wild(part: str) -> bool:
    """Tell whether a part of a pattern stands for more than itself."""
    return any(mark in part for mark in "*?[")
