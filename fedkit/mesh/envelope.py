"""The signed texts that travel: a request and its answer (`docs/protocol.md` §3, §4). Pure functions, no I/O.

A request is bound to its sender, recipient, operation, id, attempt, time of issue and expiry; an answer to the same
request, attempt and two parties. All of it is under the signature, so that a server on the way can drop or delay a text
but neither forge, alter, replay nor redirect it. Claims that this version does not know are ignored: a later
minor version may add some (DESIGN §4.8). Times are seconds since the epoch, by the signer's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey
from fedkit.mesh.api import Peer
from fedkit.mesh.errors import BadSignature, Malformed

VERSION = "1.0"
SPOKEN = ("1.0",)
MAJOR = VERSION.partition(".")[0]
NAMESPACE = "urn:fedmesh:1"

TEXT_LIMIT = 64 * 1024  # characters of one signed text
INLINE_LIMIT = 45_000  # octets of JSON that always fit one signed text, whatever the key's type
BODY_LIMIT = 1024 * 1024  # octets of JSON of one command
LIFETIME_LIMIT = 300.0  # seconds between issue and expiry of one attempt

REQUEST = "fedmesh-request+jws"
ANSWER = "fedmesh-answer+jws"

fedid_pattern = r"^[0-9a-f]{40}$"
uuid_pattern = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
operation_pattern = r"^[a-z0-9_]+(\.[a-z0-9_]+){1,3}$"
sha256_pattern = r"^[0-9a-f]{64}$"


class _Claims(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Binding(_Claims):
    """Who says what to whom: these claims are the same in every version, so that any version can be refused."""

    v: str = Field(max_length=16)
    iss: str = Field(pattern=fedid_pattern, description="fedid of the signer")
    sjid: str = Field(max_length=255, description="its bare JID")
    aud: str = Field(pattern=fedid_pattern, description="fedid of the addressee")
    rjid: str = Field(max_length=255, description="its bare JID")
    jti: str = Field(pattern=uuid_pattern, description="id of the request; the same in every attempt")
    n: int = Field(ge=1, lt=2**53, description="number of the attempt; grows with each")
    op: str = Field(max_length=64, pattern=operation_pattern)


class Reference(_Claims):
    """Stands for a body that went ahead in chunks."""

    sha256: str = Field(pattern=sha256_pattern)
    size: int = Field(ge=1, le=BODY_LIMIT)


class RequestClaims(Binding):
    """A request of version 1. Exactly one of `body` and `ref` is there."""

    iat: float = Field(allow_inf_nan=False)
    exp: float = Field(allow_inf_nan=False)
    since: float = Field(allow_inf_nan=False, description="when the request was first written down")
    after: str | None = Field(
        default=None, pattern=uuid_pattern, description="command that must have been executed before"
    )
    body: dict[str, Any] | None = None
    ref: Reference | None = None


class AnswerFault(_Claims):
    """Why a request was refused."""

    code: str = Field(max_length=64, pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")
    message: str = Field(max_length=8192)
    details: dict[str, Any] = Field(default_factory=dict)


class AnswerClaims(Binding):
    """An answer of version 1. Exactly one of `body` and `error` is there."""

    iat: float = Field(allow_inf_nan=False)
    body: dict[str, Any] | None = None
    error: AnswerFault | None = None


C = TypeVar("C", bound=_Claims)


@dataclass(frozen=True, slots=True)
class Draft:
    """A request about to be signed. `content` is JSON text: `"body":{…}` or `"ref":{…}`."""

    to: Peer
    jti: str
    n: int
    op: str
    content: str
    iat: float
    exp: float
    since: float
    after: str | None = None


def seal_request(key: PrivateKey, me: Peer, draft: Draft) -> str:
    """Sign a request."""
    claims = {
        **_binding(me, draft.to, draft.jti, draft.n, draft.op),
        "iat": draft.iat,
        "exp": draft.exp,
        "since": draft.since,
    }
    if draft.after is not None:
        claims["after"] = draft.after
    return jws.sign(key, REQUEST, _splice(claims, draft.content))


def seal_answer(key: PrivateKey, me: Peer, to: Peer, request: Binding, iat: float, content: str) -> str:
    """Sign the answer to `request`. `content` is JSON text: `"body":{…}` or `"error":{…}`."""
    claims = {**_binding(me, to, request.jti, request.n, request.op), "iat": iat}
    return jws.sign(key, ANSWER, _splice(claims, content))


def open_request(text: str) -> tuple[PublicKey, Binding]:
    """Verify a request's signature and the shape of its claims.

    The result is `RequestClaims`, or a bare `Binding` when another major version is spoken.
    Raises `Malformed` or `BadSignature`.
    """
    key, claims = _open(text, REQUEST)
    version = claims.get("v")
    if isinstance(version, str) and version.partition(".")[0] != MAJOR:
        return key, _validate(Binding, claims)
    request = _validate(RequestClaims, claims)
    if (request.body is None) == (request.ref is None):
        raise Malformed("A request has exactly one of body and ref.")
    if request.iss != key.fedid:
        raise BadSignature("The request names another sender than the one whose key signed it.")
    return key, request


def open_answer(text: str) -> tuple[PublicKey, AnswerClaims]:
    """Verify an answer's signature and the shape of its claims; raise `Malformed` or `BadSignature`."""
    key, claims = _open(text, ANSWER)
    answer = _validate(AnswerClaims, claims)
    if (answer.body is None) == (answer.error is None):
        raise Malformed("An answer has exactly one of body and error.")
    if answer.iss != key.fedid:
        raise BadSignature("The answer names another sender than the one whose key signed it.")
    return key, answer


def _binding(me: Peer, to: Peer, jti: str, n: int, op: str) -> dict[str, Any]:
    return {
        "v": VERSION,
        "iss": me.fedid,
        "sjid": me.address,
        "aud": to.fedid,
        "rjid": to.address,
        "jti": jti,
        "n": n,
        "op": op,
    }


def _splice(claims: dict[str, Any], content: str) -> bytes:
    """Append a member that is JSON already, instead of parsing it to print it again."""
    return b"%b,%b}" % (pydantic_core.to_json(claims)[:-1], content.encode())


def _open(text: str, typ: str) -> tuple[PublicKey, dict[str, Any]]:
    try:
        signed = jws.verify(text, typ)
        claims = pydantic_core.from_json(signed.payload, allow_inf_nan=False)
    except (jws.NotSigned, UnusableKey) as error:
        raise Malformed(error.message) from error
    except jws.BadSignature as error:
        raise BadSignature(error.message) from error
    except ValueError as error:  # jiter bounds the depth itself
        raise Malformed(f"The payload is not JSON: {error}.") from error
    if not isinstance(claims, dict):
        raise Malformed("The payload is not a JSON object.")
    return signed.key, claims


def _validate(model: type[C], claims: dict[str, Any]) -> C:
    try:
        return model.model_validate(claims)
    except ValidationError as error:
        fields = [".".join(map(str, item["loc"])) + ": " + item["msg"] for item in error.errors()[:8]]
        raise Malformed("These claims are wrong: " + "; ".join(fields), fields=fields) from error
