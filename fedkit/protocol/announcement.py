"""An announcement, signed and read back: what a Rendezvous and every member check alike.

The compact JWS (RFC 7515) names its key in its own header, so whoever holds the text can check it without asking
anybody. Three things must agree: the key signed the text, the key's fedid is the fedid claimed, and the name is the
domain that the address stands in (`site-b.test` for `fm.site-b.test`), so that nobody goes by another site's name.
That the address is the member's own is checked where the announcement arrives, against the stanza's sender.

A member's announcement is read by members of other versions, so keys that this version does not know are ignored, at every
depth (DESIGN §4.8).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pydantic import ValidationError

from fedkit.errors import InputError
from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey
from fedkit.protocol.rendezvous import SIGNED_LIMIT, Announcement

TYPE = "fedmesh-announcement+jws"  # the header's `typ`: nothing else that a member signs passes for an announcement


class UnusableAnnouncement(InputError):
    """An announcement that is not what its signature, its key or its form must be."""

    code = "rendezvous.bad_announcement"


class TooMuchToAnnounce(InputError):
    """What a member offers does not fit into one announcement."""

    code = "rendezvous.offer_too_large"


@dataclass(frozen=True)
class SignedAnnouncement:
    """An announcement whose signature has been checked, the key that made it, and the text."""

    announcement: Announcement
    key: PublicKey
    signed: str
    digest: str
    """SHA-256 of what it says, hex, without serial and time: a mere sign of life says the same as the one before."""


def sign_announcement(key: PrivateKey, announcement: Announcement) -> str:
    """Return the compact JWS; raise `TooMuchToAnnounce` if it is longer than `SIGNED_LIMIT`."""
    signed = jws.sign(key, TYPE, announcement.model_dump_json().encode())
    if len(signed) > SIGNED_LIMIT:
        raise TooMuchToAnnounce(
            f"The offer takes {len(signed)} octets when signed, {SIGNED_LIMIT} fit; lend fewer images or shorten "
            "their descriptions.",
            octets=len(signed),
            limit=SIGNED_LIMIT,
        )
    return signed


def read_announcement(signed: str) -> SignedAnnouncement:
    """Check the signature and the form of an announcement; raise `UnusableAnnouncement`. The caller bounds its length."""
    try:
        made = jws.verify(signed, TYPE)
        announcement = _parse(made.payload)
    except (jws.NotSigned, jws.BadSignature, UnusableKey) as error:
        raise UnusableAnnouncement(f"The announcement is not signed as it must be: {error.message}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "its root"
        raise UnusableAnnouncement(f"The announcement is malformed at {where}: {first['msg']}.") from error
    if announcement.fedid != made.key.fedid:
        raise UnusableAnnouncement(f"{made.key.fedid} signed an announcement for {announcement.fedid}.")
    if not announcement.address.endswith("." + announcement.name):
        raise UnusableAnnouncement(
            f"The name {announcement.name} is not the domain of the address {announcement.address}."
        )
    return SignedAnnouncement(announcement, made.key, signed, _digest(made.payload))


def recall_announcement(signed: str) -> Announcement:
    """Read an announcement that was checked before it was stored, without checking it again.

    Raises `ValueError` where a later version of the program finds it malformed.
    """
    return _parse(jws.decode(signed.split(".")[1]))


def _parse(payload: bytes) -> Announcement:
    return Announcement.model_validate_json(payload, strict=True, extra="ignore")


def _digest(payload: bytes) -> str:
    content = json.loads(payload)
    del content["serial"], content["issued"]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
