"""What can be wrong with an HTTP request before it reaches anything else."""

from __future__ import annotations

from fedkit.errors import Exit, FedError, InputError


class WebError(FedError):
    """Base of the family `web.*`."""

    code = "web.failed"


class UnusableRequest(InputError):
    """Body, query or header is not what the API description says; `details.problems` lists where and why."""

    code = "web.invalid"


class MalformedBody(InputError):
    """The body is not JSON text in UTF-8."""

    code = "web.malformed"


class NoSuchPath(WebError):
    """There is nothing under this path."""

    code = "web.not_found"
    http = 404
    exit = Exit.UNUSABLE_INPUT


class OperatorsOnly(WebError):
    """Only an operator of this site may read or do that."""

    code = "web.operators_only"
    http = 403
    exit = Exit.REFUSED


class MethodNotAllowed(WebError):
    """The path exists, but not for this method; the `Allow` header names those that do."""

    code = "web.method_not_allowed"
    http = 405
    exit = Exit.UNUSABLE_INPUT


class BodyTooLarge(WebError):
    """The body is larger than this server reads; `details.limit` is in octets."""

    code = "web.too_large"
    http = 413
    exit = Exit.UNUSABLE_INPUT


class BodyTooSlow(WebError):
    """The body did not arrive in time."""

    code = "web.too_slow"
    http = 408
    exit = Exit.TIMED_OUT


class UnsupportedMediaType(WebError):
    """A body must be `application/json`."""

    code = "web.media_type"
    http = 415
    exit = Exit.UNUSABLE_INPUT


class TooManyStreams(WebError):
    """One user holds as many event streams as allowed."""

    code = "web.too_many_streams"
    http = 429
    exit = Exit.REFUSED


class TooManyPreviews(WebError):
    """One user has as many descriptions read, or pictures drawn, as allowed."""

    code = "web.too_many_previews"
    http = 429
    exit = Exit.REFUSED
