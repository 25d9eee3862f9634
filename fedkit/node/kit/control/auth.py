"""Who may ask: whoever knows the key of the one who is asked. Nothing secret travels, and nothing that was heard can be said again.

    request   Federation: EPOCH NONCE MAC     MAC over the receiver's name, epoch, nonce, method, path and body
    answer    Federation: MAC                 over its name, the request's nonce, the status and the body

Everybody has a key of their own, and whoever is above them knows it: what was meant for one is no request to another, and who has
learned a node's key can answer as that node, and command nobody else. The epoch is the server's, new at each start. A wrong one is
answered with the right one, and the client asks again. Nonces are remembered until there are too many; then a new epoch begins.
Clocks need not agree.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from threading import Lock

from fedkit.node.kit.errors import NotAllowed

HEADER, EPOCH = "Federation", "Federation-Epoch"
NONCES = 100_000
_NONCE = 32  # characters


@dataclass(frozen=True)
class Identity:
    """Who is asked, as its client and its server know it."""

    name: str
    key: str = field(repr=False)

    def request_mac(self, epoch: str, nonce: str, method: str, path: str, body: bytes) -> str:
        """What proves a request to it."""
        return self._mac("request", epoch, nonce, method, path, hashlib.sha256(body).hexdigest())

    def answer_mac(self, nonce: str, status: int, body: bytes) -> str:
        """What proves an answer of it."""
        return self._mac("answer", nonce, str(status), hashlib.sha256(body).hexdigest())

    def _mac(self, kind: str, *parts: str) -> str:
        said = "\n".join((kind, self.name, *parts))
        return hmac.new(self.key.encode(), said.encode(), hashlib.sha256).hexdigest()


def nonce() -> str:
    """A new one."""
    return secrets.token_hex(_NONCE // 2)


class Doorkeeper:
    """The server's side."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._lock = Lock()
        self._seen: set[str] = set()
        self.epoch = nonce()

    def check(self, header: str, method: str, path: str, body: bytes) -> str:
        """The nonce of a request that may be carried out; raises `NotAllowed`."""
        epoch, _, rest = header.partition(" ")
        number, _, mac = rest.partition(" ")
        wanted = self._identity.request_mac(epoch, number, method, path, body)
        if len(number) != _NONCE or not hmac.compare_digest(wanted.encode(), mac.encode(errors="replace")):
            raise NotAllowed("the request does not prove to know the key of this node")
        with self._lock:
            if epoch != self.epoch or number in self._seen:
                raise NotAllowed("the request is of another time")
            if len(self._seen) >= NONCES:
                self._seen.clear()
                self.epoch = nonce()
            self._seen.add(number)
        return number
