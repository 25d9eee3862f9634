"""What is wrong with a description: always with the file and, where there is one, the line.

A reader collects what it can before it gives up, so that a person mends a file once and not line by line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from fedkit.errors import InputError


@dataclass(frozen=True, order=True)
class Problem:
    """One error or warning; `line` is None where the format has no lines or the whole file is meant."""

    file: str
    line: int | None
    code: str
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.message} [{self.code}]"

    def as_json(self) -> dict[str, str | int | None]:
        """The shape of an entry of `errors` and `warnings` (DESIGN §9)."""
        return asdict(self)


class UnusableRoute(InputError):
    """A route that a description gives a computer, to what is not there or over who is no neighbour."""

    code = "topology.unusable_route"


class BadDescription(InputError):
    """A description that cannot be used; `problems` says why, one by one, and `warnings` what may have led to it."""

    code = "topology.bad_description"

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        first, *others = problems
        more = f" (and {len(others)} more)" if others else ""
        super().__init__(f"{first}{more}", errors=[problem.as_json() for problem in problems])
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)
