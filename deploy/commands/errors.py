"""What can go wrong on the way to a member. Each error brings its exit status along (DESIGN §9)."""

from __future__ import annotations

from typing import Any

from fedkit.errors import Exit, FedError, InputError


class NotReachable(FedError):
    """The member does not answer."""

    code = "cli.not_reachable"
    exit = Exit.NOT_REACHABLE


class TimedOut(FedError):
    """What was waited for did not come in time."""

    code = "cli.timed_out"
    exit = Exit.TIMED_OUT


class NotLoggedIn(FedError):
    """No member and token are known."""

    code = "cli.not_logged_in"
    exit = Exit.REFUSED


class NotFulfilled(FedError):
    """An order that was waited for ended otherwise."""

    code = "cli.not_fulfilled"
    exit = Exit.REFUSED


class NotTold(FedError):
    """Nobody answered a question, for whatever reason each of them gave."""

    code = "cli.not_told"
    exit = Exit.REFUSED


class UnusableFile(InputError):
    """A file on this machine that cannot be used."""

    code = "cli.unusable_file"


class UnusableOption(InputError):
    """An option's value that means nothing; the message shows how it is written."""

    code = "cli.unusable_option"


class NotAMember(FedError):
    """Something answered, but not a Federation Member."""

    code = "cli.not_a_member"
    exit = Exit.UNUSABLE_INPUT


class Refused(FedError):
    """An error that the member told; it keeps the member's code and exit status."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "")), **problem.get("details", {}))
        self.code = str(problem["code"])  # type: ignore[misc]
        self.http = int(problem["status"])  # type: ignore[misc]
        self.exit = Exit(problem["exit"])  # type: ignore[misc]


class UnusableTime(InputError):
    """A time is not written as ISO 8601 says."""

    code = "cli.unusable_time"
