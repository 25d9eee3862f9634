"""AES-GCM packets (RFC 5647, as OpenSSH's `aes…-gcm@openssh.com`) without a copy that is not needed.

    4 octets length | 1 octet padding length, payload, padding  (encrypted) | 16 octets tag
                      multiple of 16; the length is authenticated, not encrypted; the nonce counts packets

Stock asyncssh builds a new key schedule for each packet and joins and cuts it several times. Here the key schedule is kept, and
packets are encrypted and decrypted from one buffer into another.
"""

from __future__ import annotations

import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

TAG = 16
BLOCK = 16
LENGTH = 4
OVERHEAD = LENGTH + 1 + TAG  # octets around payload and padding

_COUNTER = 1 << 64
# RFC 4253 §6 wants padding that nobody can guess, for the sake of ciphers older than this one; it is never a secret.
PADDING = os.urandom(BLOCK + 4)


def padding_for(payload: int) -> int:
    """Length of the padding: 4 to 19 octets that fill the last block."""
    short = -(1 + payload) % BLOCK
    return short if short >= 4 else short + BLOCK


class GcmPackets:
    """One direction of a connection; takes the place of asyncssh's `GCMEncryption`, from whatever packet on."""

    __slots__ = ("_aead", "_count", "_fixed")

    def __init__(self, key: bytes, nonce: bytes) -> None:
        self._aead = AESGCM(key)
        self._fixed = nonce[:4]
        self._count = int.from_bytes(nonce[4:], "big")

    @property
    def nonce(self) -> bytes:
        """The nonce of the next packet (RFC 5647 §7.1)."""
        return self._fixed + self._count.to_bytes(8, "big")

    def step_back(self) -> None:
        """Uncount the last packet: somebody else is to decrypt it again."""
        self._count = (self._count - 1) % _COUNTER

    def seal(self, payload: bytes) -> bytes:
        """Make the packet of a payload."""
        padding = padding_for(len(payload))
        plain = b"%c%b%b" % (padding, payload, PADDING[:padding])
        length = len(plain).to_bytes(LENGTH, "big")
        sealed = length + self._aead.encrypt(self.nonce, plain, length)
        self._count = (self._count + 1) % _COUNTER
        return sealed

    def seal_into(self, plain: memoryview, out: memoryview) -> int:
        """Encrypt a padded packet into `out`; return its whole length."""
        size = len(plain)
        end = LENGTH + size + TAG
        length = size.to_bytes(LENGTH, "big")
        out[:LENGTH] = length
        self._aead.encrypt_into(self._fixed + self._count.to_bytes(8, "big"), plain, length, out[LENGTH:end])
        self._count = (self._count + 1) % _COUNTER
        return end

    def open_into(self, length: memoryview, sealed: memoryview, out: memoryview) -> None:
        """Decrypt a packet; raise `cryptography.exceptions.InvalidTag`."""
        self._aead.decrypt_into(self._fixed + self._count.to_bytes(8, "big"), sealed, length, out)
        self._count = (self._count + 1) % _COUNTER

    # What asyncssh's own machinery calls, during key exchange and for rare packets.

    def encrypt_packet(self, _seq: int, header: bytes, packet: bytes) -> tuple[bytes, bytes]:
        """Encrypt and sign (asyncssh.encryption.Encryption)."""
        sealed = self._aead.encrypt(self.nonce, packet, header)
        self._count = (self._count + 1) % _COUNTER
        return header + sealed[:-TAG], sealed[-TAG:]

    def decrypt_header(self, _seq: int, first_block: bytes, header_len: int) -> tuple[bytes, bytes]:
        """The length is in the clear (asyncssh.encryption.Encryption)."""
        return first_block, first_block[:header_len]

    def decrypt_packet(self, _seq: int, first: bytes, rest: bytes, header_len: int, mac: bytes) -> bytes | None:
        """Verify and decrypt, None where the tag is wrong (asyncssh.encryption.Encryption)."""
        try:
            plain = self._aead.decrypt(self.nonce, first[header_len:] + rest + mac, first[:header_len])
        except InvalidTag:
            return None
        self._count = (self._count + 1) % _COUNTER
        return plain


def adopt(stock: Any) -> GcmPackets:
    """Take over from asyncssh's GCM object, with its key and at its packet."""
    cipher = stock._cipher
    return GcmPackets(cipher._key, cipher._iv)
