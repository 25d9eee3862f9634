"""What can go wrong while somebody proves who they are."""

from __future__ import annotations

from fedkit.errors import Exit, FedError, InputError


class AccountError(FedError):
    """Base of the family `account.*`."""

    code = "account.failed"


class Unauthenticated(AccountError):
    """No token, or one that is unknown, expired or revoked."""

    code = "account.unauthenticated"
    http = 401
    exit = Exit.REFUSED


class WrongPassword(AccountError):
    """User and password do not belong together; which of the two is wrong is nobody's business."""

    code = "account.wrong_password"
    http = 401
    exit = Exit.REFUSED


class TooManyAttempts(AccountError):
    """More log-ins than a person makes; `details.retry_after` is in seconds."""

    code = "account.too_many_attempts"
    http = 429
    exit = Exit.REFUSED


class UnknownToken(AccountError):
    """The caller has no token of that id."""

    code = "account.unknown_token"
    http = 404
    exit = Exit.UNUSABLE_INPUT


class TooManyTokens(AccountError):
    """An account holds as many valid tokens as it may."""

    code = "account.too_many_tokens"
    http = 409
    exit = Exit.REFUSED


class UnknownAccount(AccountError):
    """No account of that name."""

    code = "account.unknown"
    http = 404
    exit = Exit.UNUSABLE_INPUT


class AccountExists(AccountError):
    """The name is taken."""

    code = "account.exists"
    http = 409
    exit = Exit.REFUSED


class KeyTaken(AccountError):
    """The key is registered for another account."""

    code = "account.key_taken"
    http = 409
    exit = Exit.REFUSED


class UnusableAccount(InputError):
    """A name or password that is not acceptable."""

    code = "account.unusable"


class WrongKey(AccountError):
    """The challenge does not count, or its answer is not signed by the account's own key."""

    code = "account.wrong_key"
    http = 401
    exit = Exit.REFUSED


class UnusableMandate(InputError):
    """What was signed together with a log-in does not let this member act for the user, or for too long."""

    code = "account.unusable_mandate"


class UnknownProvider(AccountError):
    """No identity provider of that name is configured here."""

    code = "account.unknown_provider"
    http = 404
    exit = Exit.UNUSABLE_INPUT


class ProviderUnavailable(AccountError):
    """The identity provider gives no definite answer now; nothing is said about the password."""

    code = "account.provider_unavailable"
    http = 503
    exit = Exit.NOT_REACHABLE


class NoProject(AccountError):
    """The identity provider knows them, but in no project that counts at this site."""

    code = "account.no_project"
    http = 403
    exit = Exit.REFUSED
