"""The directory's family of errors."""

from __future__ import annotations

from fedkit.errors import Exit, FedError


class UnknownMember(FedError):
    """Nobody known goes by that name, address or fedid; the message says the nearest name."""

    code = "directory.unknown_member"
    http = 404
    exit = Exit.REFUSED


class AmbiguousMember(FedError):
    """More than one living member goes by that name; say the fedid."""

    code = "directory.ambiguous_member"
    http = 409
    exit = Exit.REFUSED


class NotOurRendezvous(FedError):
    """Somebody else than our Rendezvous tells who is in the federation."""

    code = "directory.not_our_rendezvous"
    http = 403
    exit = Exit.REFUSED


class UnusableList(FedError):
    """The Rendezvous told something that cannot be a list: pages that do not advance, or more than anyone could know."""

    code = "directory.unusable_list"
    http = 502
    exit = Exit.REFUSED


class UnusableEntry(FedError):
    """An entry of the list that its member's own signature does not bear out, or that is older than what is known."""

    code = "directory.unusable_entry"
    http = 502
    exit = Exit.REFUSED


class StaleList(FedError):
    """A newer revocation list of that issuer is known."""

    code = "directory.stale_list"
    http = 409
    exit = Exit.REFUSED


class TooManyLists(FedError):
    """As many revocation lists are known as are believed."""

    code = "directory.too_many_lists"
    http = 503
    exit = Exit.REFUSED
