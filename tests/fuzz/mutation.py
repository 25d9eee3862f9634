"""Small changes to octets: flips, cuts, repeats, and words that mean something to our parsers."""

from __future__ import annotations

import random
from collections.abc import Sequence

WORDS = (
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"<!--", b"-->", b"<![CDATA[", b"]]>", b"<?a?>", b'xmlns="urn:x"', b'xml:id="ref0"',
    b'Id="ref0"', b"<credential>", b"</credential>", b"<Signature>", b"<Object/>", b'URI=""', b"<tail/>", b"<head/>", b"sha1", b" <- ",
    b" & ", b".", b"9999-12-31T23:59:59-23:00", b"-1", b"1e999", b"null", b"{}", b"[]", b"\xff\xff\xff\xff", b"\x00", b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff", b"\x02\x01\x00", b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n",
    b"-----BEGIN PRIVATE KEY-----\n", "ſ".encode(), b"\xe2\x80\xae", b"=" * 3, b"A" * 64,
)  # fmt: skip


def mutate(data: bytes, rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """Change `data` one to eight times; the result is at most twice as long plus a little."""
    result = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at, other = _place(result, rng), _place(result, rng)
        begin, end = sorted((at, other))
        match rng.randrange(8):
            case 0 if result:
                result[at % len(result)] ^= 1 << rng.randrange(8)
            case 1 if result:
                result[at % len(result)] = rng.randrange(256)
            case 2:
                del result[at : at + rng.randint(1, 16)]
            case 3:
                result[at:at] = rng.choice(WORDS)
            case 4:
                result[at : at + rng.randint(1, 8)] = rng.choice(WORDS)
            case 5:
                result[at:at] = result[begin : min(end, begin + 1000)]
            case 6:
                del result[begin:end]
            case 7:
                donor = rng.choice(corpus)
                cut = rng.randint(0, len(donor))
                result[begin:end] = donor[cut : cut + rng.randint(0, 400)]
    return bytes(result[: 2 * len(data) + 1000])


def _place(data: bytearray, rng: random.Random) -> int:
    return rng.randint(0, len(data))
