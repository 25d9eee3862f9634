"""Signed texts: compact JWS (RFC 7515 §7.1) that carries its signer's key.

    BASE64URL({"alg": …, "typ": …, "spki": …}) . BASE64URL(payload) . BASE64URL(signature)

`spki` is the signer's DER SubjectPublicKeyInfo in base64url, so whoever reads the text needs nothing else to check it; whom
that key belongs to is the reader's question, answered by its fedid and the pinned key. `typ` says what the text is for
(RFC 8725 §3.11), so a text signed for one purpose is never taken for another. `alg` is what the key's type dictates; a
header that says otherwise is refused, there is no choice to attack.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from functools import lru_cache

from fedkit.errors import InputError
from fedkit.identity.keys import PrivateKey, PublicKey, UnusableKey

HEADER_LIMIT = 4096  # characters; an RSA key of 8192 bits needs 2000
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)\Z")


class NotSigned(InputError):
    """A text that is no compact JWS of the expected type."""

    code = "identity.not_signed"


class BadSignature(InputError):
    """A JWS whose signature its own key did not make."""

    code = "identity.bad_signature"
    http = 403


@dataclass(frozen=True)
class Signed:
    """What a verified JWS says, and the key that said it."""

    key: PublicKey
    payload: bytes


def encode(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Read base64url without padding; raise `NotSigned`."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError) as error:
        raise NotSigned("Not base64url.") from error


def sign(key: PrivateKey, typ: str, payload: bytes) -> str:
    """Sign `payload` for the purpose `typ`."""
    signed = f"{_header(key.public, typ)}.{encode(payload)}"
    return f"{signed}.{encode(key.sign(signed.encode()))}"


def verify(text: str, typ: str) -> Signed:
    """Check a text made by `sign` for the same `typ`; raise `NotSigned`, `BadSignature` or `UnusableKey`.

    The caller bounds the length of `text`, and decides whether it knows the key.
    """
    match = _COMPACT.match(text)
    if match is None:
        raise NotSigned("Not a compact JWS: three base64url parts with dots between.")
    header, payload, signature = match.groups()
    key = _signer(header, typ)
    signed = text[: match.end(2)].encode()
    if not key.verifies(decode(signature), signed):
        raise BadSignature("The signature does not verify under the key in its header.")
    return Signed(key, decode(payload))


@lru_cache(maxsize=64)
def _header(key: PublicKey, typ: str) -> str:
    header = {"alg": key.algorithm, "typ": typ, "spki": encode(key.spki)}
    return encode(json.dumps(header, separators=(",", ":")).encode())


@lru_cache(maxsize=4096)
def _signer(encoded: str, typ: str) -> PublicKey:
    """Parse a protected header; cached because one signer's is always the same, and parsing its key is not cheap."""
    if len(encoded) > HEADER_LIMIT:
        raise NotSigned(f"The JWS header has more than {HEADER_LIMIT} characters.")
    try:
        header = json.loads(decode(encoded))
    except (ValueError, RecursionError) as error:
        raise NotSigned("The JWS header is not JSON.") from error
    if not isinstance(header, dict) or set(header) != {"alg", "typ", "spki"} or not isinstance(header["spki"], str):
        raise NotSigned("The JWS header has exactly alg, typ and spki.")
    if header["typ"] != typ:
        raise NotSigned(f"The JWS is not typed {typ}.")
    key = PublicKey.from_spki(decode(header["spki"]))
    if header["alg"] != key.algorithm:
        raise UnusableKey(f"A key of this type signs with {key.algorithm} only.")
    return key
