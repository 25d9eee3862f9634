"""The `keystone` kind: an OpenStack's users sign in with their password there (Keystone's Identity API v3).

    POST /auth/tokens     user, domain, password; unscoped          201 token, or 401
    GET  /auth/projects   where that user has any role
    POST /auth/tokens     scoped to a project, with that token      for the roles there, only where a rule names roles

Which projects there are which here is the site's: `projects` are tried in turn, and all that fit count. Somebody whose projects fit none
does not get in. Nobody is an operator by it unless `operators` says so.

The answers are a stranger's: bounded in size, time and shape; redirects are not followed, so a password goes nowhere else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, FilePath, ValidationError

from federation_member.accounts.errors import ProviderUnavailable, WrongPassword
from federation_member.accounts.providers import SignedIn
from fedkit.config import Section

SECONDS = 10.0  # for all that one sign-in asks
AT_ONCE = 8  # sign-ins under way
ANSWER_LIMIT = 1024 * 1024  # octets
PROJECTS_LIMIT = 1000  # of one user
ROLES_LIMIT = 32  # projects in which the roles of one user are looked up
TOKEN_LIMIT = 8192  # characters

Text = Annotated[str, Field(max_length=255)]
A = TypeVar("A", bound=BaseModel)


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("write the address of Identity v3, such as https://keystone.site-a.test:5000/v3")
    if parts.scheme == "http" and not _is_here(parts.hostname):
        raise ValueError("passwords go by https, or not beyond this host")
    return text.rstrip("/")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ProjectRule(Section):
    """Which projects there are which here."""

    project: str = Field(description="its name there; `*` and `?` stand for any characters")
    role: str | None = Field(default=None, description="that one must have there; without it, any")
    to: str = Field(default="{project}", description="its name here; {project} is its name there")


class OperatorRule(Section):
    """Who of them is an operator of this site."""

    project: str = Field(description="its name there")
    role: str = Field(description="that one must have there")


class KeystoneConfig(Section):
    """A Keystone and what its word means here."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(description="of Identity v3")
    domain: str = Field(default="Default", description="name of its users' domain")
    ca: FilePath | None = Field(default=None, description="certificates (PEM) that it is known by; else the system's")
    projects: list[ProjectRule] = Field(
        default=[ProjectRule(project="*")], description="all that fit count, in this order"
    )
    operators: list[OperatorRule] = Field(default=[], description="who of its users is an operator of this site")


class _Named(BaseModel):
    id: Text
    name: Text


class _User(_Named):
    domain: _Named


class _Token(BaseModel):
    user: _User
    expires_at: AwareDatetime
    roles: list[_Named] = Field(default_factory=list, max_length=1000)


class _TokenAnswer(BaseModel):
    token: _Token


class _Project(_Named):
    domain_id: Text
    enabled: bool = True


class _ProjectsAnswer(BaseModel):
    projects: list[_Project] = Field(max_length=PROJECTS_LIMIT)


class Keystone:
    """One Keystone."""

    name: ClassVar[str] = "keystone"
    Config: ClassVar[type[BaseModel]] = KeystoneConfig

    def __init__(self, config: KeystoneConfig) -> None:
        self._config = config
        self._places = asyncio.Semaphore(AT_ONCE)

    async def sign_in(self, user: str, password: str) -> SignedIn:
        """See `IdentityProvider`."""
        try:
            async with asyncio.timeout(SECONDS), self._places, self._session() as http:
                return await self._ask(http, user, password)
        except TimeoutError as error:
            raise ProviderUnavailable(f"Keystone does not answer within {SECONDS:g} s; try again later.") from error
        except (aiohttp.ClientError, OSError) as error:  # ssl.SSLError is one
            raise ProviderUnavailable(f"Keystone cannot be reached: {type(error).__name__}.") from error

    def _session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=self._config.ca)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            auto_decompress=False,
        )

    async def _ask(self, http: aiohttp.ClientSession, user: str, password: str) -> SignedIn:
        by = {"user": {"name": user, "domain": {"name": self._config.domain}, "password": password}}
        secret, token = await self._token(http, {"methods": ["password"], "password": by}, "unscoped")
        if token.user.domain.name != self._config.domain:
            raise ProviderUnavailable("Keystone speaks of somebody of another domain.")
        if token.expires_at <= datetime.now(UTC):
            raise ProviderUnavailable("Keystone's word ended before it came; one of the clocks is wrong.")
        found = await self._call(http, "GET", "/auth/projects", None, {"X-Auth-Token": secret})
        projects = [
            project
            for project in _read(_ProjectsAnswer, found[1]).projects
            if project.enabled and project.domain_id == token.user.domain.id
        ]
        roles = await self._roles(http, secret, projects)
        return SignedIn(
            subject=token.user.id,
            user=token.user.name,
            projects=tuple(self._here([project.name for project in projects], roles)),
            until=token.expires_at,
            operator=self._is_operator(roles) if self._config.operators else None,
        )

    async def _roles(
        self, http: aiohttp.ClientSession, secret: str, projects: Sequence[_Project]
    ) -> dict[str, set[str]]:
        """What one may do in the projects for which that counts."""
        rules = [rule.project for rule in self._config.projects if rule.role is not None]
        exact = {rule.project for rule in self._config.operators}
        asked = [p for p in projects if p.name in exact or any(fnmatchcase(p.name, rule) for rule in rules)]
        roles: dict[str, set[str]] = {}
        for project in asked[:ROLES_LIMIT]:
            identity = {"methods": ["token"], "token": {"id": secret}}
            _secret, scoped = await self._token(http, identity, {"project": {"id": project.id}})
            roles[project.name] = {role.name for role in scoped.roles}
        return roles

    def _here(self, projects: Sequence[str], roles: dict[str, set[str]]) -> list[str]:
        """Their names at this site."""
        named = [
            rule.to.replace("{project}", project)
            for rule in self._config.projects
            for project in sorted(projects)
            if fnmatchcase(project, rule.project) and (rule.role is None or rule.role in roles.get(project, ()))
        ]
        return list(dict.fromkeys(named))

    def _is_operator(self, roles: dict[str, set[str]]) -> bool:
        return any(rule.role in roles.get(rule.project, ()) for rule in self._config.operators)

    # The wire

    async def _token(self, http: aiohttp.ClientSession, identity: dict[str, Any], scope: Any) -> tuple[str, _Token]:
        body = {"auth": {"identity": identity, "scope": scope}}
        headers, text = await self._call(http, "POST", "/auth/tokens", body, {})
        secret = headers.get("X-Subject-Token", "")
        if not 0 < len(secret) <= TOKEN_LIMIT or not secret.isascii():
            raise ProviderUnavailable("Keystone gave no token.")
        return secret, _read(_TokenAnswer, text).token

    async def _call(
        self, http: aiohttp.ClientSession, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> tuple[Any, bytes]:
        url = self._config.url + path
        async with http.request(method, url, json=body, headers=headers, allow_redirects=False) as answer:
            if answer.status == 401:
                raise WrongPassword("User and password do not belong together.")
            if answer.status not in (200, 201):
                raise ProviderUnavailable(f"Keystone answered with status {answer.status}.")
            text = b""
            async for part in answer.content.iter_chunked(64 * 1024):
                text += part
                if len(text) > ANSWER_LIMIT:
                    raise ProviderUnavailable("Keystone's answer does not end.")
            return answer.headers, text


def _read(model: type[A], text: bytes) -> A:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise ProviderUnavailable("Keystone's answer is not one of Identity v3.") from error
