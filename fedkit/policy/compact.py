"""Our own form of a credential: a compact JWS, signed by the head's principal with whatever key it has.

{"statement": "A.r <- B", "not_before": 1790000000, "expires": 1790086400}        times in seconds since the epoch
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, UnusableKey
from fedkit.policy.errors import BadCredential
from fedkit.policy.model import STATEMENT_LIMIT, Credential, Statement, UnusableStatement

TYPE = "fedmesh-credential+jws"
ENCODING = "compact"
LIMIT = 2 * STATEMENT_LIMIT  # characters of the whole text
USUAL = 2048  # characters; longer ones are checked each time
_LATEST = 253402300799  # the last second of the year 9999


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    statement: str = Field(max_length=STATEMENT_LIMIT)
    not_before: int | None = Field(default=None, ge=0, le=_LATEST)
    expires: int = Field(ge=0, le=_LATEST)


def issue(key: PrivateKey, statement: Statement, expires: datetime, not_before: datetime | None = None) -> Credential:
    """Sign `statement`, whose head must be a role of `key`'s owner; times are cut to whole seconds."""
    if statement.head.principal != key.fedid:
        raise BadCredential(
            f"Only {statement.head.principal} can say who has {statement.head}; this key is {key.fedid}'s."
        )
    payload: dict[str, str | int] = {"statement": str(statement)}
    if not_before is not None:
        payload["not_before"] = int(not_before.timestamp())
    payload["expires"] = int(expires.timestamp())
    return read(jws.sign(key, TYPE, json.dumps(payload, separators=(",", ":")).encode()))


def read(text: str) -> Credential:
    """Check the signature of a compact credential; raise `BadCredential`. Whether it holds now is not looked at."""
    return _remembered(text) if len(text) <= USUAL else _read(text)


def _read(text: str) -> Credential:
    if len(text) > LIMIT:
        raise BadCredential(f"A credential has at most {LIMIT} characters; this one has {len(text)}.")
    try:
        signed = jws.verify(text, TYPE)
        payload = _Payload.model_validate_json(signed.payload)
        statement = Statement.parse(payload.statement)
    except (jws.NotSigned, jws.BadSignature, UnusableKey, UnusableStatement) as error:
        raise BadCredential(f"Not a credential: {error.message}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "payload"
        raise BadCredential(f"Not a credential: {where}: {first['msg']}") from error
    if statement.head.principal != signed.key.fedid:
        raise BadCredential(f"{signed.key.fedid} signed a statement about a role of {statement.head.principal}.")
    not_before = None if payload.not_before is None else datetime.fromtimestamp(payload.not_before, UTC)
    expires = datetime.fromtimestamp(payload.expires, UTC)
    if not_before is not None and not_before >= expires:
        raise BadCredential("The credential expires before it begins.")
    return Credential(statement, signed.key, expires, not_before, ENCODING, text.encode())


# A stranger can send any number of credentials of their own making; what is remembered of them is bounded, about 100 MB at worst.
_remembered = lru_cache(maxsize=16384)(_read)
