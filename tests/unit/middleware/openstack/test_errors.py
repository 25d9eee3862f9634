"""What a cloud's refusals mean; the bodies are what real services answered."""

from __future__ import annotations

import json

import pytest
from keystoneauth1 import exceptions as keystone
from requests import ReadTimeout

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
from federation_member.middleware.openstack.errors import NotThere, fault, refusal, translated

NOVA_QUOTA = "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances"
ANSWERS: list[tuple[int, object, type[MiddlewareError]]] = [
    (403, {"forbidden": {"code": 403, "message": NOVA_QUOTA}}, NoQuota),
    (403, {"forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:create"}}, NotAuthorised),
    (
        409,
        {"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['port'].", "detail": ""}},
        NoQuota,
    ),
    (
        413,
        {"overLimit": {"code": 413, "message": "VolumeLimitExceeded: Maximum number of volumes allowed (1) exceeded"}},
        NoQuota,
    ),
    (
        409,
        {"NeutronError": {"type": "IpAddressGenerationFailure", "message": "No more IP addresses available"}},
        NoCapacity,
    ),
    (
        400,
        {"NeutronError": {"type": "ExternalIpAddressExhausted", "message": "Unable to find any IP address"}},
        NoCapacity,
    ),
    (503, {"NeutronError": {"type": "NoNetworkAvailable", "message": "Unable to create the network."}}, NoCapacity),
    (400, {"badRequest": {"code": 400, "message": "Can not find requested image"}}, UnknownImage),
    (400, {"badRequest": {"code": 400, "message": "Flavor 77 could not be found."}}, UnknownFlavour),
    (400, {"badRequest": {"code": 400, "message": "Flavor's disk is too small for requested image."}}, UnusableSpec),
    (401, {"error": {"code": 401, "message": "The request you have made requires authentication."}}, NotAuthorised),
    (404, {"itemNotFound": {"code": 404, "message": "Instance 1 could not be found."}}, NotThere),
    (409, {"NeutronError": {"type": "NetworkInUse", "message": "Unable to complete operation on network"}}, StillUsed),
    (429, {"overLimit": {"code": 429, "message": "Too many requests"}}, Unavailable),
    (500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}, Unavailable),
    (502, "<html><body><h1>Bad gateway</h1></body></html>", Unavailable),
]


@pytest.mark.parametrize(("status", "body", "meaning"), ANSWERS, ids=str)
def test_a_refusal_has_its_type_and_keeps_the_clouds_words(
    status: int, body: object, meaning: type[MiddlewareError]
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    error = refusal(status, text.encode(), "POST /servers of compute")
    assert type(error) is meaning
    words = next(iter(body.values()))["message"] if isinstance(body, dict) else "Bad gateway"
    assert words in error.message
    assert "POST /servers of compute" in error.message


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b'"text"', b'{"message": 7}', b'{"a": []}'], ids=repr
)
def test_any_body_makes_an_error(body: bytes) -> None:
    assert len(refusal(500, body, "a call").message) < 1000


def test_what_glance_does_not_take_for_an_image() -> None:
    body = (
        b"<html><head><title>415 Unsupported Media Type</title></head>"
        b"<body><h1>415 Unsupported Media Type</h1>Image failed safety checks</body></html>"
    )
    error = refusal(415, body, "PUT /images/1/file of image")
    assert type(error) is UnusableImage
    assert "Image failed safety checks" in error.message


def test_faults_of_servers() -> None:
    assert isinstance(fault("No valid host was found. "), NoCapacity)
    assert isinstance(fault("Exceeded maximum number of retries. Exhausted all hosts available"), NoCapacity)
    assert isinstance(fault("Maximum number of ports exceeded: Quota exceeded"), NoQuota)
    assert type(fault("Build of instance aborted")) is MiddlewareError
    assert fault("").message


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (keystone.Unauthorized("no"), NotAuthorised),
        (keystone.ConnectFailure("no way"), Unavailable),
        (keystone.EndpointNotFound("nothing there"), Unavailable),
        (ReadTimeout("slow"), Unavailable),
        (KeyError("token"), Unavailable),
        (OSError("gone"), Unavailable),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_the_library_raises_is_told_in_our_words(error: Exception, meaning: type[MiddlewareError]) -> None:
    assert type(translated(error, "a call")) is meaning
