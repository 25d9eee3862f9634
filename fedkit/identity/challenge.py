"""Proof of possession by a challenge: a nonce that was never used before, signed for one verifier and one purpose.

    verifier ── nonce ──► owner of the key ── JWS typ fedmesh-possession+jws ──► verifier
                                              {"nonce", "audience": verifier's fedid, "subject": what for, "binds": SHA-256 of …}

The audience keeps a dishonest verifier from using the answer elsewhere; `binds` ties other signed texts to it, so that nothing can be
exchanged on the way. That the nonce is fresh and used once is the verifier's to see to.
"""

from __future__ import annotations

import hashlib
import secrets

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedkit.errors import Exit, InputError
from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey

TYPE = "fedmesh-possession+jws"
ANSWER_LIMIT = 8192  # characters
NONCE = 32  # octets


class NotPossessed(InputError):
    """An answer that does not show possession of a key, to this verifier, for this purpose, for this nonce."""

    code = "identity.not_possessed"
    http = 403
    exit = Exit.REFUSED


class _Payload(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    nonce: str = Field(max_length=128)
    audience: str = Field(max_length=40)
    subject: str = Field(max_length=256)
    binds: str = Field(max_length=64)


def new_nonce() -> str:
    """Return 256 random bits, in base64url."""
    return secrets.token_urlsafe(NONCE)


def answer(key: PrivateKey, nonce: str, audience: str, subject: str, bound: str = "") -> str:
    """Sign a nonce for `audience` (a fedid), as `subject`, tied to the text `bound`."""
    payload = _Payload(nonce=nonce, audience=audience, subject=subject, binds=_digest(bound))
    return jws.sign(key, TYPE, payload.model_dump_json().encode())


def nonce_of(text: str) -> str:
    """Return the nonce that an answer claims to be for, unchecked: to find what is known of it."""
    return _open(text)[1].nonce


def check(text: str, nonce: str, audience: str, subject: str, bound: str = "") -> PublicKey:
    """Return the key whose owner answered this challenge; raise `NotPossessed`."""
    key, payload = _open(text)
    if payload != _Payload(nonce=nonce, audience=audience, subject=subject, binds=_digest(bound)):
        raise NotPossessed("The answer is for another challenge, another member, somebody else or another text.")
    return key


def _open(text: str) -> tuple[PublicKey, _Payload]:
    if len(text) > ANSWER_LIMIT:
        raise NotPossessed(f"An answer has at most {ANSWER_LIMIT} characters.")
    try:
        signed = jws.verify(text, TYPE)
        return signed.key, _Payload.model_validate_json(signed.payload)
    except (jws.NotSigned, jws.BadSignature, UnusableKey) as error:
        raise NotPossessed(f"Not an answer to a challenge: {error.message}") from error
    except ValidationError as error:
        raise NotPossessed("Not an answer to a challenge: its payload has another form.") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
