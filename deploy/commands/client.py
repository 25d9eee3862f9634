"""Speaks to a member's REST API, with nothing but the standard library, so that `fed` starts quickly.

Where and as whom: `FED_URL` and `FED_TOKEN`, else what `fed login` has stored.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from deploy.commands.errors import NotAMember, NotLoggedIn, NotReachable, Refused, UnusableFile
from fedkit.errors import InputError

PREFIX = "/api/v1"
SECONDS = 30.0
ANSWER_LIMIT = 64 * 1024 * 1024
LINE_LIMIT = 4 * 1024 * 1024


def credentials_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where `fed login` stores URL and token (XDG Base Directory)."""
    home = environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "fedmesh" / "credentials.toml"


def store_credentials(url: str, token: str, token_id: str) -> Path:
    """Write URL and token, readable by the owner alone; an interrupted write leaves the old file."""
    path = credentials_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        # A JSON string without control characters is a TOML basic string.
        values = {"url": url, "token": token, "token_id": token_id}
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    new.replace(path)
    return path


def stored_credentials() -> dict[str, str]:
    """What `fed login` stored, empty if nothing; raises `UnusableFile`."""
    path = credentials_file()
    try:
        return {key: str(value) for key, value in tomllib.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UnusableFile(f"{path} cannot be read: {error}. Run `fed login` again.") from error


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: str
    name: str
    data: Any


@dataclass(frozen=True)
class Client:
    """One member's API as one user; every call opens its own connection."""

    url: str
    token: str = field(default="", repr=False)
    seconds: float = SECONDS

    @classmethod
    def of_this_user(cls) -> Client:
        """The client that `FED_URL` and `FED_TOKEN`, or else `fed login`, describe; raises `NotLoggedIn`."""
        url, token = os.environ.get("FED_URL", ""), os.environ.get("FED_TOKEN", "")
        if not (url and token):
            stored = stored_credentials()
            url, token = url or stored.get("url", ""), token or stored.get("token", "")
        if not (url and token):
            raise NotLoggedIn("No member is known; run `fed login URL --user NAME`, or set FED_URL and FED_TOKEN.")
        return cls(url, token)

    def get(self, path: str, **query: Any) -> Any:
        """Read something; `None` leaves a query parameter out."""
        given = {key: value for key, value in query.items() if value is not None}
        return self.request("GET", path + ("?" + urlencode(given) if given else ""))

    def items(self, path: str, **query: Any) -> list[Any]:
        """Read all pages of a list."""
        found: list[Any] = []
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, **query)
            found += page["items"]
            cursor = page.get("next")
            if cursor is None:
                return found

    def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
        """Make something."""
        return self.request("POST", path, body, headers)

    def patch(self, path: str, body: Any) -> Any:
        """Change something."""
        return self.request("PATCH", path, body)

    def delete(self, path: str) -> Any:
        """Remove something."""
        return self.request("DELETE", path)

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send one request and return the JSON answer; raises `Refused`, `NotReachable`, `NotAMember`."""
        sent = {"Accept": "application/json", **(headers or {})}
        payload = None
        if body is not None:
            payload = json.dumps(body)
            sent["Content-Type"] = "application/json"
        connection, response = self._send(method, path, payload, sent, self.seconds)
        try:
            answer = response.read(ANSWER_LIMIT)
        except (OSError, http.client.HTTPException) as error:
            raise NotReachable(f"{self.url} broke off: {error}.") from error
        finally:
            connection.close()
        return self._understand(response, answer)

    def events(
        self, last_event_id: str | None, seconds: float, path: str = "/events", more: Mapping[str, str] | None = None
    ) -> Iterator[Event]:
        """Follow an event stream until it breaks off; raises `TimeoutError` after `seconds`, however much came."""
        deadline = time.monotonic() + seconds
        headers = {"Accept": "text/event-stream", **(more or {})}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        connection, response = self._send("GET", path, None, headers, seconds)
        try:
            if response.status != http.HTTPStatus.OK:
                self._understand(response, response.read(ANSWER_LIMIT))
            yield from _parse_events(_lines(connection, response, deadline))
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, payload: str | None, headers: dict[str, str], seconds: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        base = urlsplit(self.url)
        connection = self._connect(base.scheme, base.hostname, _port(self.url), seconds)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, base.path.rstrip("/") + PREFIX + path, payload, headers)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise NotReachable(f"{self.url} does not answer: {error}. Is the member running there?") from error

    def _connect(self, scheme: str, host: str | None, port: int | None, seconds: float) -> http.client.HTTPConnection:
        if scheme not in ("http", "https") or not host:
            raise InputError(f"{self.url!r} is not an address such as https://fm.site-a.test.")
        if scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=seconds, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=seconds)

    def _understand(self, response: http.client.HTTPResponse, answer: bytes) -> Any:
        if response.status == http.HTTPStatus.NO_CONTENT:
            return None
        try:
            data = json.loads(answer)
            if response.status < http.HTTPStatus.BAD_REQUEST:
                return data
            problem = Refused(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            what = f"{response.status} {response.getheader('Content-Type', '')}".strip()
            raise NotAMember(f"{self.url} answers, but not as a Federation Member does ({what}).") from error
        raise problem


def _port(url: str) -> int | None:
    try:
        return urlsplit(url).port
    except ValueError as error:
        raise InputError(f"{url!r} has no usable port.") from error


def _lines(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float
) -> Iterator[bytes]:
    """Read lines until the stream ends; a heartbeat does not put the deadline off."""
    while (left := deadline - time.monotonic()) > 0:
        if connection.sock is not None:
            connection.sock.settimeout(left)
        line = response.readline(LINE_LIMIT)
        if not line:
            return
        yield line
    raise TimeoutError("the time is up")


def _parse_events(lines: Iterator[bytes]) -> Iterator[Event]:
    """Parse server-sent events (HTML Living Standard §9.2.6), as far as our servers use them."""
    last_id, name, data = "", "", ""
    for line in lines:
        key, _, value = line.decode(errors="replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        match key:
            case "id":
                last_id = value
            case "event":
                name = value
            case "data":
                data += value
            case "" if not value and (data or last_id):
                yield Event(last_id, name, json.loads(data) if data else None)
                name, data = "", ""


def segment(text: str) -> str:
    """Quote one path segment."""
    return quote(text, safe="")
