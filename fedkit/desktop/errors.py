"""What can go wrong on a desktop."""

from __future__ import annotations

from fedkit.errors import Exit, FedError


class DesktopError(FedError):
    """The machine cannot be changed as it must be; what was changed is put back."""

    code = "desktop.failed"
    exit = Exit.REFUSED


class UnusableSeat(FedError):
    """What the member told is nothing that a desktop does: no address, or a route to somewhere it does not belong."""

    code = "desktop.unusable_seat"
    exit = Exit.REFUSED


class InTheWay(FedError):
    """The experiment has networks that this machine reaches otherwise already; in a namespace of its own it may attach."""

    code = "desktop.in_the_way"
    exit = Exit.REFUSED


class NoNamespace(FedError):
    """No namespace can be made here for a command; what the system said is in the message."""

    code = "desktop.no_namespace"
    exit = Exit.REFUSED
