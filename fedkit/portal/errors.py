"""How portals refuse and fail: the family `portal.*`."""

from __future__ import annotations

from fedkit.errors import Exit, FedError


class PortalError(FedError):
    """Something that a portal cannot do."""

    code = "portal.failed"


class UnusableConfig(PortalError):
    """The configuration file cannot be used; the message names the key and what to do."""

    code = "portal.bad_config"
    http = 400
    exit = Exit.UNUSABLE_INPUT


class WrongLibrary(PortalError):
    """The ssh library is not the version that this program is made for."""

    code = "portal.wrong_asyncssh"
    exit = Exit.UNUSABLE_INPUT


class AlreadyRunning(PortalError):
    """Another portal holds the same state."""

    code = "portal.running"
    http = 409
    exit = Exit.REFUSED


class NoTap(PortalError):
    """The kernel gives no tap: no /dev/net/tun, no right, or a foreign interface has the name."""

    code = "portal.no_tap"


class NoBridge(PortalError):
    """A bridge, interface or queue could not be made as it must be; the message holds what `ip` said."""

    code = "portal.no_bridge"


class NotReached(PortalError):
    """The peer cannot be reached now, or is not the one whose key is pinned."""

    code = "portal.not_reached"
    http = 504
    exit = Exit.NOT_REACHABLE


class Violation(PortalError):
    """The peer broke the portals' protocol; its connection is dropped."""

    code = "portal.violation"
    http = 400
    exit = Exit.REFUSED
