"""The one shape of every error that a person or a program may see.

An error carries a stable code (`family.what`), a sentence that says what to do next, and details for
programs. The same code travels in REST (`application/problem+json`), in a mesh answer and on the command
line, so that an operator can search for it in any log. Each component keeps its own family beside itself in
`errors.py`; what they share is this base and the translation to HTTP and to exit statuses.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, ClassVar


class Exit(IntEnum):
    """Exit status of every `fed` command (DESIGN §9)."""

    DONE = 0
    REFUSED = 1
    UNUSABLE_INPUT = 2
    NOT_REACHABLE = 3
    TIMED_OUT = 4
    OUR_FAULT = 70


class FedError(Exception):
    """Base of all error families.

    `code` is stable and never reused; `http` and `exit` are how it shows itself there; `message` is for the
    person (what is wrong and what to do); `details` is JSON-serialisable and holds no secret.
    """

    code: ClassVar[str] = "internal"
    http: ClassVar[int] = 500
    exit: ClassVar[Exit] = Exit.OUR_FAULT

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def to_dict(self) -> dict[str, Any]:
        """Return the wire form: `{"code", "message", "details"}`."""
        return {"code": self.code, "message": self.message, "details": self.details}


class InputError(FedError):
    """The request itself cannot be used; repeating it unchanged is pointless."""

    code = "input.invalid"
    http = 400
    exit = Exit.UNUSABLE_INPUT


class RemoteError(FedError):
    """An error that a peer reported; it keeps the peer's code, so it looks the same at both sites."""

    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None, http: int = 502) -> None:
        super().__init__(message, **(details or {}))
        # Instance attributes shadow the class's on purpose: the family is the peer's, not ours.
        self.code = code  # type: ignore[misc]
        self.http = http  # type: ignore[misc]
        self.exit = Exit.REFUSED  # type: ignore[misc]
