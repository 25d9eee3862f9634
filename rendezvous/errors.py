"""How the Rendezvous refuses: the family `rendezvous.*` (two more stand in `fedkit/protocol/announcement.py`)."""

from __future__ import annotations

from fedkit.errors import Exit, FedError


class NotAllowed(FedError):
    """The sender is not on this Rendezvous's allow list."""

    code = "rendezvous.not_allowed"
    http = 403
    exit = Exit.REFUSED


class NotYours(FedError):
    """The announcement speaks for another key or another address than the sender's."""

    code = "rendezvous.not_yours"
    http = 403
    exit = Exit.REFUSED


class StaleAnnouncement(FedError):
    """A newer announcement of this member is known, or this one is too old or from the future."""

    code = "rendezvous.stale_announcement"
    http = 409
    exit = Exit.REFUSED


class Full(FedError):
    """The list holds as many members as its operator allows."""

    code = "rendezvous.full"
    http = 503
    exit = Exit.REFUSED


class UnknownRevision(FedError):
    """What changed since that revision cannot be told any more; read the whole list."""

    code = "rendezvous.unknown_revision"
    http = 410
    exit = Exit.REFUSED


class NotAnnounced(FedError):
    """Whoever says that it lives is not on the list with what it announced; it announces itself again."""

    code = "rendezvous.not_announced"
    http = 409
    exit = Exit.REFUSED


class StaleList(FedError):
    """A newer revocation list of that issuer is known."""

    code = "rendezvous.stale_list"
    http = 409
    exit = Exit.REFUSED


class TooManyLists(FedError):
    """The Rendezvous keeps as many revocation lists as it may, in all or from this member."""

    code = "rendezvous.too_many_lists"
    http = 503
    exit = Exit.REFUSED
