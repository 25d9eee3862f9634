"""What the cloud's refusals mean, in the contract's words; the cloud's own words are kept.

Sources: the API references of Nova, Neutron, Cinder, Glance and Keystone, and what a real cloud answered. Bodies differ by
service: {"badRequest": {"message"}}, {"NeutronError": {"type", "message"}}, {"error": {"message"}}, {"message"} or a page of HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk
from requests import RequestException

from federation_member.middleware.contract import (
    MiddlewareError,
    NoCapacity,
    NoQuota,
    NotAuthorised,
    StillUsed,
    Unavailable,
    UnknownFlavour,
    UnknownImage,
    UnusableImage,
    UnusableSpec,
)

LONGEST = 500  # characters of the cloud's words that are kept


class NotThere(MiddlewareError):
    """404. Never leaves this package by itself: whoever deletes is content, whoever gets says None."""


class InConflict(MiddlewareError):
    """409 of a sort that the caller knows how to go on from."""


_QUOTA = re.compile(r"quota|limit exceeded|VolumeLimitExceeded", re.IGNORECASE)
_CAPACITY = re.compile(
    r"no valid host|No more IP addresses|IpAddressGenerationFailure|ExternalIpAddressExhausted|NoNetworkAvailable"
    r"|no available|not enough|InsufficientFreeSpace|No valid backend|available weighted backend|OutOfCapacity"
    r"|Exceeded maximum number of retries|IpAddressAlreadyAllocated|IpAddressInUse",
    re.IGNORECASE,
)
_IMAGE = re.compile(
    r"imageRef|find requested image|Image \S+ could not be found|Image \S+ is not active", re.IGNORECASE
)
_FLAVOUR = re.compile(r"flavorRef|Flavor \S+ could not be found", re.IGNORECASE)
_USED = re.compile(r"in use|InUse|still has|has active", re.IGNORECASE)
_BY_STATUS: dict[int, Callable[[str], MiddlewareError]] = {
    400: UnusableSpec,
    401: NotAuthorised,
    403: NotAuthorised,
    404: NotThere,
    408: Unavailable,
    413: UnusableSpec,
    415: UnusableImage,  # Glance looked into it
    429: Unavailable,
}


def refusal(status: int, body: bytes, what: str) -> MiddlewareError:
    """Return the error for an answer with this status (400 or more) to the call `what`."""
    kind, words = _words(body)
    message = f"{words or f'HTTP {status}'} ({what})"
    if status >= 500 and not _CAPACITY.search(kind):
        return Unavailable(f"The cloud fails: {message}")
    if status == 400 and what.startswith("GET "):
        return Unavailable(f"The cloud does not understand what it is asked: {message}")
    return _meaning(status, f"{kind} {words}")(message)


def fault(words: str) -> MiddlewareError:
    """Return the error for what the cloud says of something that it could not make."""
    words = words[:LONGEST] or "The cloud says no more than that it failed."
    if _CAPACITY.search(words):
        return NoCapacity(words)
    return NoQuota(words) if _QUOTA.search(words) else MiddlewareError(words)


def _meaning(status: int, text: str) -> Callable[[str], MiddlewareError]:
    if status in (403, 409, 413) and _QUOTA.search(text):
        return NoQuota
    if _CAPACITY.search(text):
        return NoCapacity
    if status in (400, 404) and _IMAGE.search(text):
        return UnknownImage
    if status in (400, 404) and _FLAVOUR.search(text):
        return UnknownFlavour
    if status == 409:
        return StillUsed if _USED.search(text) else InConflict
    return _BY_STATUS.get(status, MiddlewareError)


def _words(body: bytes) -> tuple[str, str]:
    """The type of an error, where there is one, and what it says to people."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return "", " ".join(re.sub(r"<[^>]*>", " ", body[:4096].decode(errors="replace")).split())[:LONGEST]
    found = data
    if isinstance(data, dict) and "message" not in data:
        found = next((value for value in data.values() if isinstance(value, dict)), data)
    if not isinstance(found, dict):
        return "", str(found)[:LONGEST]
    return str(found.get("type", "")), str(found.get("message", ""))[:LONGEST]


def translated(error: Exception, what: str) -> MiddlewareError:
    """Return what `error`, raised by openstacksdk, keystoneauth or requests during the call `what`, means."""
    match error:
        case MiddlewareError():
            return error
        case keystone.Unauthorized() | keystone.Forbidden():
            return NotAuthorised(f"Keystone does not let the account in: {_first_line(error)} ({what})")
        case keystone.CatalogException() | sdk.ConfigException():
            return Unavailable(
                f"The cloud's catalog has no such service for this account: {_first_line(error)} ({what}). "
                "Check region and interface in [middleware.options]."
            )
        case keystone.ClientException() | sdk.SDKException() | RequestException():
            return Unavailable(f"The cloud does not answer as it should: {_first_line(error)} ({what})")
        case OSError():
            return Unavailable(f"{_first_line(error)} ({what})")
        case _:
            return Unavailable(
                f"The cloud's answer makes no sense: {type(error).__name__}: {_first_line(error)} ({what})"
            )


def _first_line(error: Exception) -> str:
    """Without what requests and urllib3 add: it names their objects, and says nothing new."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.partition(": HTTPConnectionPool")[0].partition(": HTTPSConnectionPool")[0][:LONGEST]
