"""One account's connection to the cloud: openstacksdk signs in, finds the services and renews tokens; calls go through it.

Calls are made at the level of the REST API (`connection.compute.get(...)`) and every answer is read by a pydantic model of what
we need from it: an answer that is malformed, too long or late is `Unavailable`, never a strange exception later. One
`openstack.connection.Connection` for each account is shared by threads: keystoneauth takes a lock to renew a token, and the pool
of connections beneath (urllib3) is made for it; the proxies of services are made under our own lock.

Each call has its own limits, and its own place in the bounded pool of threads; steps of several calls are coroutines, so a cloud
that hangs holds no more than the pool, and whoever waits is told `Unavailable` in time.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sized
from functools import lru_cache
from typing import Any, Literal, TypeVar

import structlog
from openstack.connection import Connection
from openstack.proxy import Proxy
from pydantic import BaseModel, Field, ValidationError, create_model
from requests import Response

from federation_member.middleware.contract import MiddlewareError, NotAuthorised, Unavailable
from federation_member.middleware.openstack.config import Credentials, OpenStackConfig
from federation_member.middleware.openstack.errors import NotThere, refusal, translated
from federation_member.middleware.openstack.threads import Threads

log = structlog.get_logger()
M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
Service = Literal["compute", "network", "block_storage", "image", "identity"]
NOVA = "2.52"  # microversion of every call to Nova: tags in the call that makes a server; Pike (2017) has it
CINDER = "3.27"  # attachments and filters by metadata; Ocata (2017) has it
MICROVERSIONS = {"compute": NOVA, "block_storage": CINDER}
LARGEST = 64 << 20  # octets of one answer
STORING = 300.0  # seconds that Glance may take to answer after the last octet of an image
PIECE = 1 << 18
MOST_PAGES = 1000
Query = str | int | list[str]


class Empty(BaseModel):
    """An answer of which nothing is needed."""


class Cloud:
    """The cloud as one account sees it."""

    def __init__(
        self,
        account: str,
        credentials: Credentials,
        config: OpenStackConfig,
        threads: Threads,
        project: str | None = None,
    ) -> None:
        """With `project`, an id, the account works in that one, whatever its credentials name."""
        self.account = account
        self._project = project
        self._credentials = credentials
        self._config = config
        self._threads = threads
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    async def get(self, service: Service, path: str, model: type[M], /, **query: Query) -> M:
        """What `GET path` answers; raises `NotThere` and the other errors of the contract."""
        return await self._call(service, "GET", path, model, params=query)

    async def all(self, service: Service, path: str, name: str, model: type[M], /, **query: Query) -> list[M]:
        """Every item of the list `name` that `GET path` answers, page after page."""
        items: list[M] = []
        page = _page_of(name, model)
        for _ in range(MOST_PAGES):
            answer: Any = await self.get(service, path, page, **query)
            items += answer.items
            if not answer.items or not (answer.next or any(link.get("rel") == "next" for link in answer.links)):
                return items
            if query.get("marker") == answer.items[-1].id:
                break
            query["marker"] = answer.items[-1].id
        raise Unavailable(f"The cloud's list of {name} has no end.")

    async def post(self, service: Service, path: str, body: Any, model: type[M], **headers: str) -> M:
        """What `POST path` answers."""
        return await self._call(service, "POST", path, model, json=body, headers=headers)

    async def put(self, service: Service, path: str, body: Any, model: type[M]) -> M:
        """What `PUT path` answers."""
        return await self._call(service, "PUT", path, model, json=body)

    async def patch(self, service: Service, path: str, body: Any, model: type[M], **headers: str) -> M:
        """What `PATCH path` answers."""
        return await self._call(service, "PATCH", path, model, json=body, headers=headers)

    async def upload(self, path: str, source: Sized, threads: Threads) -> None:
        """Have Glance store what `source`, a file of known length, reads. It takes as long as octets flow, in other threads."""
        what = f"PUT {path} of image"
        try:
            await threads.run(lambda: self._send(path, source, what))
        except MiddlewareError:
            raise
        except Exception as error:
            raise translated(error, what) from error

    async def delete(self, service: Service, path: str) -> bool:
        """Ask for the end of something; whether it was there."""
        try:
            await self._call(service, "DELETE", path, Empty)
        except NotThere:
            return False
        except (
            NotAuthorised
        ):  # Neutron says that, too, of what is going at this very moment: it cannot tell whose it is
            if await self._is_there(service, path):
                raise
            return False
        return True

    async def _is_there(self, service: Service, path: str) -> bool:
        try:
            await self._call(service, "GET", path, Empty)
        except NotThere:
            return False
        return True

    async def has(self, service: Service) -> bool:
        """Whether the cloud's catalog names the service."""
        return await self._in_thread(
            f"find the service {service}", lambda: self._proxy(service).get_endpoint() is not None
        )

    @property
    def known_project(self) -> str | None:
        """The id of the account's project, as far as it is known."""
        return self._project

    async def project_id(self) -> str:
        """The id of the account's project; signs in if need be."""
        if self._project is None:
            self._project = await self._in_thread("sign in", self._sign_in)
        return self._project

    async def user_id(self) -> str:
        """The id of the user that the account's credentials belong to."""
        return await self._in_thread("sign in", lambda: str(self._connected().current_user_id))

    async def _call(self, service: Service, method: str, path: str, model: type[M], **how: Any) -> M:
        what = f"{method} {path} of {service.replace('_', ' ')}"
        return await self._in_thread(what, lambda: self._exchange(service, method, path, model, what, how))

    async def _in_thread(self, what: str, call: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(self._config.timeouts.call):
                return await self._threads.run(call)
        except TimeoutError as error:
            raise Unavailable(f"The cloud does not answer within {self._config.timeouts.call:g} s ({what})") from error
        except NotAuthorised:
            self._forget()
            raise
        except MiddlewareError:
            raise
        except Exception as error:
            meaning = translated(error, what)
            log.warning("cloud_call_failed", account=self.account, error=type(error).__name__, reason=meaning.message)
            if isinstance(meaning, NotAuthorised):
                self._forget()
            raise meaning from error

    # In a thread

    def _exchange(self, service: Service, method: str, path: str, model: type[M], what: str, how: dict[str, Any]) -> M:
        limits = self._config.timeouts
        deadline = time.monotonic() + limits.answer
        response = self._proxy(service).request(
            path,
            method,
            raise_exc=False,
            timeout=(limits.connect, limits.answer),
            stream=True,
            microversion=MICROVERSIONS.get(service),
            **how,
        )
        try:
            body = _read(response, deadline, what)
        finally:
            response.close()
        if response.status_code >= 400:
            raise refusal(response.status_code, body, what)
        if model is Empty:
            return model()
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"])) or "all of it"
            raise Unavailable(
                f"The cloud's answer makes no sense at {where}: {error.errors()[0]['msg']} ({what})"
            ) from error

    def _send(self, path: str, source: Sized, what: str) -> None:
        response = self._proxy("image").request(
            path,
            "PUT",
            raise_exc=False,
            data=source,
            headers={"Content-Type": "application/octet-stream"},
            timeout=(self._config.timeouts.answer, STORING),
            stream=True,
        )
        try:
            body = _read(response, time.monotonic() + self._config.timeouts.answer, what)
        finally:
            response.close()
        if response.status_code >= 400:
            raise refusal(response.status_code, body, what)

    def _proxy(self, service: Service) -> Proxy:
        connection = self._connected()
        with self._lock:
            return getattr(connection, service)  # type: ignore[no-any-return]  # makes it, once, with discovery

    def _sign_in(self) -> str:
        return str(self._connected().current_project_id)

    def _connected(self) -> Connection:
        with self._lock:
            if self._connection is None:
                self._connection = connect(self._credentials, self._config, self._project)
            return self._connection

    def close(self) -> None:
        """Let go of what is open to the cloud; whoever asks again opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.session.close()

    def _forget(self) -> None:
        """Read the secret and sign in anew next time: it may have been changed."""
        self.close()
        self._connection = None


@lru_cache(maxsize=256)
def _page_of(name: str, model: type[BaseModel]) -> type[BaseModel]:
    """One page of a list: Nova, Neutron and Cinder say by `NAME_links` that there is more, Glance by `next`."""
    return create_model(
        "Page",
        items=(list[model], Field(alias=name)),  # type: ignore[valid-type]
        links=(list[Mapping[str, str]], Field(default=[], alias=f"{name}_links")),
        next=(str | None, None),
    )


def _read(response: Response, deadline: float, what: str) -> bytes:
    """The body, within bounds of size and time."""
    body = bytearray()
    for piece in response.iter_content(PIECE):
        body += piece
        if len(body) > LARGEST:
            raise Unavailable(f"The cloud's answer is longer than {LARGEST >> 20} MiB ({what})")
        if time.monotonic() > deadline:
            raise Unavailable(f"The cloud's answer takes too long ({what})")
    return bytes(body)


def connect(credentials: Credentials, config: OpenStackConfig, project: str | None = None) -> Connection:
    """Return a connection that signs in when it is first used; with `project`, an id, into that one."""
    try:
        secret = credentials.secret.read_text().strip()
    except OSError as error:
        raise NotAuthorised(
            f"The file with the account's secret cannot be read: {error.strerror}: {credentials.secret}"
        ) from error
    return Connection(
        auth_type="v3applicationcredential" if credentials.application_credential else "v3password",
        auth={"auth_url": config.auth_url} | _proof(credentials, secret, project),
        region_name=config.region,
        interface=config.interface,
        cacert=None if config.ca is None else str(config.ca),
        api_timeout=config.timeouts.answer,
        app_name="fedmesh",
    )


def _proof(credentials: Credentials, secret: str, project: str | None) -> dict[str, str]:
    if credentials.application_credential is not None:
        return {
            "application_credential_id": credentials.application_credential,
            "application_credential_secret": secret,
        }
    assert credentials.user is not None
    assert credentials.project is not None
    who = {"username": credentials.user, "user_domain_name": credentials.user_domain, "password": secret}
    if project is not None:
        return who | {"project_id": project}
    return who | {"project_name": credentials.project, "project_domain_name": credentials.project_domain}
