"""Signed lists of credentials that no longer count, though they have not expired.

    {"serial": 7, "issued": 1790000000, "revoked": {"<credential id>": 1790086400, …}}     times in seconds since the epoch

A list is a compact JWS; its issuer is the key that signed it, and it says something about this issuer's credentials only. A newer list
(a greater serial) replaces the older one altogether. Beside each id stands when the credential expires, so that the issuer can
leave it out of lists made after that: a list holds as much as is revoked and alive, and stays small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey
from fedkit.policy.errors import BadRevocationList
from fedkit.policy.model import Credential

TYPE = "fedmesh-revocations+jws"
LIMIT = 64 * 1024  # characters of the whole text: about 550 credentials
_LATEST = 253402300799  # the last second of the year 9999
_Seconds = Annotated[int, Field(ge=0, le=_LATEST)]
_Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    serial: int = Field(ge=0, lt=2**63)
    issued: _Seconds
    revoked: dict[_Id, _Seconds]


@dataclass(frozen=True)
class RevocationList:
    """What `issuer` has revoked, by credential id, with when each would expire; `text` is the signed form."""

    issuer: PublicKey
    serial: int
    issued: datetime
    revoked: Mapping[str, datetime]
    text: str


def issue(key: PrivateKey, serial: int, issued: datetime, revoked: Mapping[str, datetime]) -> RevocationList:
    """Sign a list of what is revoked; times are cut to whole seconds. What has expired when it is issued is left out.

    Raise `BadRevocationList` for more than a list can hold: then the issuer takes a new key, or waits for expiry.
    """
    payload = {
        "serial": serial,
        "issued": int(issued.timestamp()),
        "revoked": {name: int(until.timestamp()) for name, until in sorted(revoked.items()) if until > issued},
    }
    return read(jws.sign(key, TYPE, json.dumps(payload, separators=(",", ":")).encode()))


def read(text: str) -> RevocationList:
    """Check a list's signature and form; raise `BadRevocationList`."""
    if len(text) > LIMIT:
        raise BadRevocationList(f"A revocation list has at most {LIMIT} characters; this one has {len(text)}.")
    try:
        signed = jws.verify(text, TYPE)
        payload = _Payload.model_validate_json(signed.payload)
    except (jws.NotSigned, jws.BadSignature, UnusableKey) as error:
        raise BadRevocationList(f"Not a revocation list: {error.message}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "payload"
        raise BadRevocationList(f"Not a revocation list: {where}: {first['msg']}") from error
    revoked = {name: _instant(until) for name, until in payload.revoked.items()}
    return RevocationList(signed.key, payload.serial, _instant(payload.issued), revoked, text)


class Revocations:
    """The newest list of each issuer."""

    def __init__(self) -> None:
        self._lists: dict[bytes, RevocationList] = {}

    def note(self, listing: RevocationList) -> bool:
        """Return whether it is news: a greater serial than its issuer's list that was known."""
        known = self._lists.get(listing.issuer.spki)
        if known is not None and listing.serial <= known.serial:
            return False
        self._lists[listing.issuer.spki] = listing
        return True

    def revokes(self, credential: Credential) -> bool:
        """Tell whether `credential`'s own issuer has revoked it."""
        known = self._lists.get(credential.issuer.spki)
        return known is not None and credential.id in known.revoked


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
