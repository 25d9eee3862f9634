"""Answers the control network: one request a connection, bounded in size, time and number."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread, Timer
from typing import Any

from fedkit.node.kit.control.auth import EPOCH, HEADER, Doorkeeper, Identity
from fedkit.node.kit.errors import BadRequest, KitError, NotAllowed

SIZE_LIMIT = 1024 * 1024  # octets of a request
AT_ONCE = 32  # requests
PATIENCE = 10.0  # seconds for a request to arrive
IP_FREEBIND = 15  # linux/in.h

Answer = Callable[[str, str, Any], Any]  # method, path, what was said


class Server(ThreadingHTTPServer):
    """Listens at one address; `close` ends it."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, place: tuple[str, int], identity: Identity, answer: Answer) -> None:
        super().__init__(place, _Handler)
        self.door = Doorkeeper(identity)
        self.identity = identity
        self.answer = answer
        self._room = BoundedSemaphore(AT_ONCE)
        self._thread = Thread(target=self.serve_forever, args=(0.1,), daemon=True)

    def server_bind(self) -> None:
        """Listen even at an address that this machine does not have yet: networks may come up later."""
        self.socket.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        super().server_bind()

    def begin(self) -> tuple[str, int]:
        """Serve; returns where."""
        self._thread.start()
        return self.server_address[0], self.server_address[1]  # type: ignore[return-value]  # IPv4

    def close(self) -> None:
        """Serve no longer."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Turn away whoever comes when the house is full."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One request; it leaves room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nobody's fault."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE
    server_version, sys_version = "federation", ""

    def setup(self) -> None:
        """A request that does not arrive in time is none, however much of it comes now and then."""
        super().setup()
        self._deadline = Timer(PATIENCE, self._hang_up)
        self._deadline.daemon = True
        self._deadline.start()

    def finish(self) -> None:
        """It is answered."""
        self._deadline.cancel()
        super().finish()

    def _hang_up(self) -> None:
        with suppress(OSError):  # they are gone
            self.connection.shutdown(socket.SHUT_RDWR)

    def do_GET(self) -> None:
        """GET."""
        self._serve()

    def do_POST(self) -> None:
        """POST."""
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Requests are not logged."""

    def _serve(self) -> None:
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > SIZE_LIMIT:
            return self.send_error(413)
        body = self.rfile.read(int(length))
        self._deadline.cancel()
        try:
            number = self.server.door.check(self.headers.get(HEADER, ""), self.command, self.path, body)
        except NotAllowed:
            self.send_response(401)
            self.send_header(EPOCH, self.server.door.epoch)
            return self.end_headers()
        status, said = self._answer(body)
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header(HEADER, self.server.identity.answer_mac(number, status, content))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return None

    def _answer(self, body: bytes) -> tuple[int, Any]:
        try:
            said = json.loads(body) if body else None
            return 200, self.server.answer(self.command, self.path, said)
        except BadRequest as error:
            return 400, {"error": str(error)}
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            return 400, {"error": f"{error} [{BadRequest.code}]"}
        except KitError as error:
            return 500, {"error": str(error)}
