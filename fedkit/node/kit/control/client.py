"""Asks somebody of the control network."""

from __future__ import annotations

import hmac
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from threading import Timer
from typing import Any

from fedkit.node.kit.control.auth import EPOCH, HEADER, Identity, nonce
from fedkit.node.kit.errors import BadRequest, NotAllowed, Unreachable

SIZE_LIMIT = 8 * 1024 * 1024  # octets of an answer
TIMEOUT = 10.0  # seconds
TRIES = 3  # epochs
UNAUTHORIZED = 401


class Client:
    """One whom one asks; remembers the epoch."""

    def __init__(self, place: tuple[str, int], identity: Identity) -> None:
        self.place = place
        self._identity = identity
        self._epoch = "-"

    def ask(self, method: str, path: str, said: Any = None, timeout: float = TIMEOUT) -> Any:
        """The answer, which comes whole within `timeout` seconds; raises `Unreachable`, `NotAllowed` or `BadRequest`."""
        body = b"" if said is None else json.dumps(said).encode()
        for _ in range(TRIES):
            tried = self._epoch  # another thread may learn of a new one meanwhile
            status, epoch, answer = self._once(method, path, tried, body, timeout)
            if status != UNAUTHORIZED or epoch in ("", tried):
                break
            self._epoch = epoch
        if status == UNAUTHORIZED:
            raise NotAllowed(f"{self._named} does not let us in: its key is another")
        if status != 200:
            raise BadRequest(f"{self._named}: {answer.get('error', status) if isinstance(answer, dict) else status}")
        return answer

    @property
    def _named(self) -> str:
        return f"{self.place[0]}:{self.place[1]}"

    def _once(self, method: str, path: str, tried: str, body: bytes, timeout: float) -> tuple[int, str, Any]:
        number, connection = nonce(), HTTPConnection(*self.place, timeout=timeout)
        mac = self._identity.request_mac(tried, number, method, path, body)
        try:
            connection.connect()
            with _hung_up(connection.sock, timeout):
                connection.request(method, path, body or None, {HEADER: f"{tried} {number} {mac}"})
                answer = connection.getresponse()
                content = answer.read(SIZE_LIMIT + 1)
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{self._named} does not answer: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if answer.status == UNAUTHORIZED:
            return answer.status, answer.headers.get(EPOCH, ""), None
        proof = self._identity.answer_mac(number, answer.status, content)
        said = str(answer.headers.get(HEADER, ""))
        if len(content) > SIZE_LIMIT or not hmac.compare_digest(proof.encode(), said.encode(errors="replace")):
            raise NotAllowed(f"the answer of {self._named} does not prove to know its key")
        try:
            return answer.status, "", json.loads(content)
        except (ValueError, RecursionError):
            raise BadRequest(f"{self._named} answers what is no JSON") from None


@contextmanager
def _hung_up(connection: socket.socket, seconds: float) -> Iterator[None]:
    """Hang up if this takes longer, however much of an answer comes now and then."""

    def hang_up() -> None:
        with suppress(OSError):  # they are gone
            connection.shutdown(socket.SHUT_RDWR)

    deadline = Timer(seconds, hang_up)
    deadline.daemon = True
    deadline.start()
    try:
        yield
    finally:
        deadline.cancel()
