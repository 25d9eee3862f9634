"""What can go wrong with the lab; family `lab`."""

from __future__ import annotations

from fedkit.errors import Exit, FedError, InputError


class LabFailed(FedError):
    """The lab could not be brought up, or a part of it did not do what it was told; the message ends with its log."""

    code = "lab.failed"


class CommandTimedOut(FedError):
    """A command on a host of the lab did not end in time."""

    code = "lab.timed_out"
    http = 504
    exit = Exit.TIMED_OUT


class Unsupported(FedError):
    """This machine allows neither namespaces as root nor user namespaces."""

    code = "lab.unsupported"
    exit = Exit.REFUSED


class NotUp(FedError):
    """No lab of that name runs for this user."""

    code = "lab.not_up"
    http = 404
    exit = Exit.NOT_REACHABLE


class AlreadyUp(FedError):
    """A lab of that name runs already."""

    code = "lab.already_up"
    http = 409
    exit = Exit.REFUSED


class Unknown(InputError):
    """No such site, host or role in this lab."""

    code = "lab.unknown"
