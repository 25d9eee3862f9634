"""What can be wrong with the services that a description asks for."""

from __future__ import annotations

from fedkit.errors import InputError


class UnknownService(InputError):
    """A service that is not installed."""

    code = "services.unknown"


class UnusableService(InputError):
    """A service with a testbed or an attribute that it cannot use, or lacks."""

    code = "services.unusable"
