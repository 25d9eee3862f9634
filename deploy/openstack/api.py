"""The least of a client that a script needs: a token, JSON requests, and words when one is refused.

The federation's own middleware uses openstacksdk; what sets a cloud up for its tests should not share its mistakes.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, Self

from deploy.openstack.errors import CloudFailed
from deploy.openstack.layout import PORTS, Cloud

TIMEOUT = 60.0  # seconds


@dataclass(frozen=True)
class Account:
    """What a user needs to act in a project."""

    project: str
    user: str
    password: str


class Client:
    """Somebody who is signed in."""

    def __init__(self, cloud: Cloud, account: Account) -> None:
        self._cloud = cloud
        user = {"name": account.user, "domain": {"id": "default"}, "password": account.password}
        scope = {"project": {"name": account.project, "domain": {"id": "default"}}}
        auth = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
        answer, headers = self._exchange("POST", cloud.auth_url + "/auth/tokens", {"auth": auth}, {})
        self._token = headers["X-Subject-Token"]
        self.project: str = answer["token"]["project"]["id"]

    @classmethod
    def administrator(cls, cloud: Cloud) -> Self:
        """Sign in as who may do everything."""
        return cls(cloud, Account("admin", "admin", cloud.secret_file.read_text()))

    def get(self, service: str, path: str) -> Any:
        """What is there."""
        return self._ask("GET", service, path)

    def post(self, service: str, path: str, body: Any) -> Any:
        """Make something."""
        return self._ask("POST", service, path, body)

    def put(self, service: str, path: str, body: Any = None) -> Any:
        """Set something."""
        return self._ask("PUT", service, path, body)

    def delete(self, service: str, path: str) -> None:
        """Remove something."""
        self._ask("DELETE", service, path)

    def upload(self, path: str, content: bytes) -> None:
        """Store an image's content."""
        self._exchange("PUT", self._cloud.url("glance", path), content, self._headers("application/octet-stream"))

    def _ask(self, method: str, service: str, path: str, body: Any = None) -> Any:
        assert service in PORTS
        return self._exchange(method, self._cloud.url(service, path), body, self._headers("application/json"))[0]

    def _headers(self, kind: str) -> dict[str, str]:
        return {"X-Auth-Token": self._token, "Content-Type": kind}

    @staticmethod
    def _exchange(method: str, url: str, body: Any, headers: dict[str, str]) -> tuple[Any, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        told = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(url, data, told, method=method)  # noqa: S310 - a cloud of ours
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                text = answer.read()
                return json.loads(text) if text else None, answer.headers
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise CloudFailed(f"{method} {url} brought {error.code}: {said}") from error
