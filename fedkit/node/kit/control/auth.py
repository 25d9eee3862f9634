"""Who may ask: whoever knows the experiment's key. Nothing secret travels, and nothing that was heard can be said again.

    request   Federation: EPOCH NONCE MAC     MAC over epoch, nonce, method, path and body; the epoch is the server's, new at each start
    answer    Federation: MAC                 over the request's nonce, the status and the body

A wrong epoch is answered with the right one, and the client asks again. Nonces are remembered until there are too many; then a new epoch
begins. Clocks need not agree.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from threading import Lock

from fedkit.node.kit.errors import NotAllowed

HEADER, EPOCH = "Federation", "Federation-Epoch"
NONCES = 100_000
_NONCE = 32  # characters


def request_mac(key: str, epoch: str, nonce: str, method: str, path: str, body: bytes) -> str:
    """What proves a request."""
    return _mac(key, "request", epoch, nonce, method, path, hashlib.sha256(body).hexdigest())


def answer_mac(key: str, nonce: str, status: int, body: bytes) -> str:
    """What proves an answer."""
    return _mac(key, "answer", nonce, str(status), hashlib.sha256(body).hexdigest())


def nonce() -> str:
    """A new one."""
    return secrets.token_hex(_NONCE // 2)


def _mac(key: str, *parts: str) -> str:
    return hmac.new(key.encode(), "\n".join(parts).encode(), hashlib.sha256).hexdigest()


class Doorkeeper:
    """The server's side."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._lock = Lock()
        self._seen: set[str] = set()
        self.epoch = nonce()

    def check(self, header: str, method: str, path: str, body: bytes) -> str:
        """The nonce of a request that may be carried out; raises `NotAllowed`."""
        epoch, _, rest = header.partition(" ")
        number, _, mac = rest.partition(" ")
        wanted = request_mac(self._key, epoch, number, method, path, body)
        if len(number) != _NONCE or not hmac.compare_digest(wanted.encode(), mac.encode(errors="replace")):
            raise NotAllowed("the request does not prove to know the experiment's key")
        with self._lock:
            if epoch != self.epoch or number in self._seen:
                raise NotAllowed("the request is of another time")
            if len(self._seen) >= NONCES:
                self._seen.clear()
                self.epoch = nonce()
            self._seen.add(number)
        return number
