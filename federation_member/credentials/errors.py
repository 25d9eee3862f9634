"""What can go wrong with what is said in a user's name; codes of the family `credentials.*`."""

from __future__ import annotations

from fedkit.errors import Exit, FedError, InputError


class NoAccount(FedError):
    """The account in whose name something was to be asked is gone."""

    code = "credentials.no_account"
    http = 403
    exit = Exit.REFUSED


class Suspended(FedError):
    """Nothing is asked in this user's name until the site's operator restores the account."""

    code = "credentials.suspended"
    http = 403
    exit = Exit.REFUSED


class NoMandate(FedError):
    """The user's own key has not said, or not for now, that this member acts for them."""

    code = "credentials.no_mandate"
    http = 403
    exit = Exit.REFUSED


class NotYourProject(InputError):
    """The user is not in that project; the message names those that there are."""

    code = "credentials.not_your_project"


class UnknownCredential(FedError):
    """The user keeps no credential of that id."""

    code = "credentials.unknown"
    http = 404
    exit = Exit.UNUSABLE_INPUT


class TooMuchKept(FedError):
    """The user keeps as many credentials as one may."""

    code = "credentials.too_many"
    http = 409
    exit = Exit.REFUSED


class CredentialExpired(InputError):
    """A credential that does not hold any more is not worth keeping."""

    code = "credentials.expired"


class StaleList(FedError):
    """A newer revocation list of that issuer is known; make the next one from that."""

    code = "credentials.stale_list"
    http = 409
    exit = Exit.REFUSED


class TooManyLists(FedError):
    """The user publishes revocation lists of as many issuers as one may."""

    code = "credentials.too_many_lists"
    http = 409
    exit = Exit.REFUSED
