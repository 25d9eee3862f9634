"""What the kit cannot do; told in its log, with its code."""

from __future__ import annotations

from typing import ClassVar


class KitError(Exception):
    """Base: a stable code and a sentence."""

    code: ClassVar[str] = "kit.failed"

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.code}]"


class BadConf(KitError):
    """A `client.conf` that cannot be read."""

    code = "kit.bad_conf"


class CommandFailed(KitError):
    """A program of the system failed, or is not there."""

    code = "kit.command_failed"


class NotYet(KitError):
    """What may work a little later: a network or a server is not up."""

    code = "kit.not_yet"


class InUse(KitError):
    """What cannot be taken back because somebody uses it."""

    code = "kit.in_use"


class StrangeLink(KitError):
    """A link that neither root nor an image made stands where the kit has to change something; it may lead anywhere."""

    code = "kit.strange_link"


class NotAllowed(KitError):
    """A request of the control network that does not prove to know the experiment's key."""

    code = "kit.not_allowed"


class BadRequest(KitError):
    """A request of the control network that cannot be used."""

    code = "kit.bad_request"


class Unreachable(KitError):
    """Somebody of the control network does not answer."""

    code = "kit.unreachable"
