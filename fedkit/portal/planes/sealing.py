"""Datagrams that nobody else can make, read or repeat: AES-128-GCM with a key for each direction (RFC 5116).

    1 octet epoch | 1 kind | 1 index | 1 count | 2 octets size | 6 octets counter | ciphertext | 16 octets tag
                            the header is authenticated; salt and its last eight octets are the nonce

Keys are random, travel inside the ssh session, and are replaced after an hour or 2^32 datagrams, long before a counter could come
again. A datagram is taken once: a window over the last `WINDOW` counters remembers which have come.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HEADER = struct.Struct(">BBBBHHI")  # epoch, kind, index, count, size, counter (16 + 32 bits)
TAG = 16
OVERHEAD = HEADER.size + TAG
KEY, SALT = 16, 4  # octets
WINDOW = 4096  # datagrams: at 1400 octets and 1 Gbit/s, 45 ms of disorder
REKEY_SECONDS = 3600.0
REKEY_DATAGRAMS = 2**32
EPOCHS = 256


@dataclass(frozen=True)
class Secret:
    """Of one direction, for one epoch."""

    epoch: int
    key: bytes = field(repr=False)
    salt: bytes = field(repr=False)


class Sealer:
    """The sending end of an epoch."""

    def __init__(self, secret: Secret, now: float) -> None:
        self._aead = AESGCM(secret.key)
        self._salt = secret.salt
        self._epoch = secret.epoch
        self._began = now
        self.counter = 0

    def is_old(self, now: float) -> bool:
        """Whether it is time for the next epoch."""
        return now - self._began > REKEY_SECONDS or self.counter >= REKEY_DATAGRAMS

    def seal_into(self, out: memoryview, kind: int, index: int, count: int, plain: memoryview | bytes) -> int:
        """Write one datagram; return its size."""
        counter = self.counter
        self.counter = counter + 1
        size = len(plain)
        HEADER.pack_into(out, 0, self._epoch, kind, index, count, size, counter >> 32, counter & 0xFFFFFFFF)
        header = bytes(out[: HEADER.size])
        self._aead.encrypt_into(self._salt + header[4:], plain, header, out[HEADER.size : OVERHEAD + size])
        return OVERHEAD + size


@dataclass(frozen=True, slots=True)
class Opened:
    """One authentic datagram, seen for the first time."""

    kind: int
    index: int
    count: int
    counter: int
    plain: bytes


class Opener:
    """The receiving end of an epoch."""

    def __init__(self, secret: Secret) -> None:
        self._aead = AESGCM(secret.key)
        self._salt = secret.salt
        self.highest = -1
        self._seen = 0  # bit n: highest - n has come

    def open(self, datagram: memoryview) -> Opened | None:
        """None: forged, damaged, or seen before."""
        header = bytes(datagram[: HEADER.size])
        if len(datagram) < OVERHEAD:
            return None
        _, kind, index, count, size, high, low = HEADER.unpack(header)
        counter = high << 32 | low
        behind = self.highest - counter
        if size != len(datagram) - OVERHEAD or behind >= WINDOW or (behind >= 0 and self._seen >> behind & 1):
            return None
        try:
            plain = self._aead.decrypt(self._salt + header[4:], datagram[HEADER.size :], header)
        except InvalidTag:
            return None
        if behind < 0:
            self._seen = (self._seen << -behind | 1) & ((1 << WINDOW) - 1) if -behind < WINDOW else 1
            self.highest = counter
        else:
            self._seen |= 1 << behind
        return Opened(kind, index, count, counter, plain)
