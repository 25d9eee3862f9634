"""What can go wrong on the way to a member, and the exit status of everything (DESIGN §9)."""

from __future__ import annotations

from typing import Any

from fedkit.errors import Exit, FedError, InputError

_BY_HTTP_STATUS = {
    401: Exit.REFUSED,
    403: Exit.REFUSED,
    409: Exit.REFUSED,
    410: Exit.REFUSED,
    429: Exit.REFUSED,
    502: Exit.REFUSED,
    503: Exit.NOT_REACHABLE,
    504: Exit.TIMED_OUT,
}


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


class UnusableFile(InputError):
    """A file on this machine that cannot be used."""

    code = "cli.unusable_file"


class NotAMember(FedError):
    """Something answered, but not a Federation Member."""

    code = "cli.not_a_member"
    exit = Exit.UNUSABLE_INPUT


class Refused(FedError):
    """An error that the member told; it keeps the member's code."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(str(problem.get("detail", "")), **problem.get("details", {}))
        self.code = str(problem["code"])  # type: ignore[misc]
        self.http = int(problem["status"])  # type: ignore[misc]
        self.exit = exit_of(self.http)  # type: ignore[misc]


def exit_of(http_status: int) -> Exit:
    """The exit status that belongs to an HTTP status."""
    default = Exit.OUR_FAULT if http_status >= 500 else Exit.UNUSABLE_INPUT
    return _BY_HTTP_STATUS.get(http_status, default)
