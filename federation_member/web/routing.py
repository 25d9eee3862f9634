"""One function is one operation: its signature is the contract, and the API description is made from nothing else.

    @routes.post("/orders", status=201, errors=(UnknownImage,))
    async def create_orders(call: Call, body: NewOrder, headers: IdempotencyHeader) -> OrderPage:
        '''Order machines or networks.'''

The parameters that a handler may have are told by their names: `path`, `query`, `headers` and `body`, each a pydantic
model. They are checked before the handler runs: bodies strictly (`"5"` is not 5), the others from text. What the
handler returns is written as JSON; a handler that returns a `StreamResponse` has written it itself.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_type_hints

from aiohttp import web
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from federation_member.orders.model import User
from federation_member.web.errors import (
    BodyTooLarge,
    BodyTooSlow,
    MalformedBody,
    NoSuchPath,
    UnsupportedMediaType,
    UnusableRequest,
)
from fedkit.errors import FedError

Services = TypeVar("Services")
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])
Authenticate = Callable[[web.Request], Awaitable[User]]
PARTS = ("path", "query", "headers", "body")
PROBLEMS_SHOWN = 20
BODY_SECONDS = 30.0


@dataclass(frozen=True)
class Call(Generic[Services]):
    """One request on its way through a handler."""

    request: web.Request
    services: Services
    caller: User | None

    @property
    def user(self) -> User:
        """Who asks; only open operations have nobody."""
        assert self.caller is not None
        return self.caller


@dataclass(frozen=True)
class Route:
    """One operation, as its handler's signature and docstring tell it."""

    method: str
    path: str
    handler: Callable[..., Awaitable[Any]]
    status: int
    errors: tuple[type[FedError], ...]
    open: bool
    makes: tuple[str, str] | None
    tag: str
    media_type: str
    parts: dict[str, type[BaseModel]]
    answer: type[BaseModel] | None

    @property
    def name(self) -> str:
        """The operation's id in the API description."""
        return self.handler.__name__

    @property
    def doc(self) -> str:
        """What it does; the first line is the summary."""
        return inspect.getdoc(self.handler) or ""


@dataclass
class Routes:
    """The operations of one part of the API."""

    tag: str
    routes: list[Route] = field(default_factory=list)

    def __iter__(self) -> Iterator[Route]:
        return iter(self.routes)

    def add(
        self,
        method: str,
        path: str,
        *,
        status: int = 200,
        errors: tuple[type[FedError], ...] = (),
        open: bool = False,  # noqa: A002 - the word of the contract: open to everybody
        makes: tuple[str, str] | None = None,
        media_type: str = "application/json",
    ) -> Callable[[Handler], Handler]:
        """Register the decorated handler.

        `open`: nobody need say who it is. `makes`: the path parameter whose value the answer holds, and where, as an
        OpenAPI runtime expression.
        """

        def register(handler: Handler) -> Handler:
            hints = get_type_hints(handler)
            answer = hints["return"]
            self.routes.append(
                Route(
                    method=method,
                    path=path,
                    handler=handler,
                    status=status,
                    errors=errors,
                    open=open,
                    makes=makes,
                    tag=self.tag,
                    media_type=media_type,
                    parts={part: hints[part] for part in PARTS if part in hints},
                    answer=answer if isinstance(answer, type) and issubclass(answer, BaseModel) else None,
                )
            )
            return handler

        return register


def serve(
    route: Route, services: object, authenticate: Authenticate
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return the aiohttp handler of a route: authenticate, check every part, run, write."""

    async def handle(request: web.Request) -> web.StreamResponse:
        caller = None if route.open else await authenticate(request)
        parts = {name: await _read_part(name, model, request) for name, model in route.parts.items()}
        result = await route.handler(Call(request, services, caller), **parts)
        if isinstance(result, web.StreamResponse):
            return result
        if result is None:
            return web.Response(status=route.status)
        return web.Response(status=route.status, text=result.model_dump_json(), content_type=route.media_type)

    return handle


async def _read_part(name: str, model: type[BaseModel], request: web.Request) -> BaseModel:
    if name == "body":
        return await _read_body(model, request)
    try:
        if name == "path":
            return model.model_validate(dict(request.match_info))
        if name == "query":
            _refuse_repeated(request)
            return model.model_validate(dict(request.query))
        wanted = {field.alias or key for key, field in model.model_fields.items()}
        return model.model_validate({key: request.headers[key] for key in wanted if key in request.headers})
    except ValidationError as error:
        if name == "path":
            raise NoSuchPath("There is nothing under this path.") from error
        raise _unusable(name, error) from error


def _refuse_repeated(request: web.Request) -> None:
    repeated = sorted({key for key in request.query if len(request.query.getall(key)) > 1})
    if repeated:
        raise UnusableRequest(f"Given more than once: {', '.join(repeated)[:200]}.")


async def _read_body(model: type[BaseModel], request: web.Request) -> BaseModel:
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send the body as application/json.")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await request.read()
    except TimeoutError as error:
        raise BodyTooSlow(f"The body did not arrive within {BODY_SECONDS:g} s.") from error
    except web.HTTPRequestEntityTooLarge as error:
        limit = request.client_max_size
        raise BodyTooLarge(f"A body may have {limit // 1024} KiB at most.", limit=limit) from error
    except web.RequestPayloadError as error:
        raise MalformedBody("The body's encoding is broken.") from error
    if b"\\u0000" in data or b"\0" in data:
        raise MalformedBody("Text may not contain the character U+0000.")
    try:
        content = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from error
    try:
        return model.model_validate_json(to_json(_whole(content)), strict=True)
    except ValidationError as error:
        raise _unusable("body", error) from error


def _whole(value: Any) -> Any:
    """Write 5.0 as 5: to JSON Schema both are the integer (draft 2020-12, §6.1.1 of the validation part)."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {key: _whole(item) for key, item in value.items()}
    return value


def _unusable(part: str, error: ValidationError) -> UnusableRequest:
    """Tell where and why, without repeating the values: they may be secrets."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:PROBLEMS_SHOWN]
    problems = [{"in": part, "at": ".".join(str(step) for step in item["loc"]), "why": item["msg"]} for item in found]
    first = problems[0]
    where = f"{first['in']} {first['at']}".strip()
    return UnusableRequest(f"{where[:200]}: {first['why']}.", problems=json.loads(json.dumps(problems)))
