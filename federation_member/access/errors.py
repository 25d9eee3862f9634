"""What can be wrong with a policy; each code appears once."""

from __future__ import annotations

from fedkit.errors import Exit, FedError, InputError


class UnusablePolicy(InputError):
    """A policy that cannot be used; the message names the place and says what to write instead."""

    code = "access.unusable_policy"


class FailedExpectations(FedError):
    """A policy does not decide as its own expectations say."""

    code = "access.failed_expectations"
    http = 409
    exit = Exit.REFUSED


class UnusableDatabase(InputError):
    """One of fedd's databases that cannot be read; the message names file and line."""

    code = "access.unusable_database"


class IncompleteLog(InputError):
    """The audit log lacks what one of its entries names."""

    code = "access.incomplete_log"
