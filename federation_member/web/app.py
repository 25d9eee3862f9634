"""The HTTP server: the API, its description, the dashboard, health and metrics, on one port.

Everything that answers goes through `_guard`: an error of ours becomes a problem with its code, anything unforeseen
becomes `internal` with an id that finds it in the log, and every answer carries the security headers. Only bearer tokens
count, never cookies, so that no other site's page can act for a user.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Metric

from federation_member.accounts.errors import Unauthenticated
from federation_member.orders.model import User
from federation_member.web.at_once import AT_ONCE
from federation_member.web.errors import MethodNotAllowed, NoSuchPath, WebError
from federation_member.web.openapi import PREFIX, describe
from federation_member.web.problem import problem_response
from federation_member.web.routes import ALL
from federation_member.web.routing import Route, serve
from federation_member.web.services import Services
from federation_member.web.stream import AUTHENTICATE, STREAMS
from fedkit.errors import FedError
from fedkit.protocol.lending import USER_DATA_LIMIT
from fedkit.service import add_health_routes

log = structlog.get_logger()

BODY_LIMIT = 2 * USER_DATA_LIMIT  # user data in JSON, with its escapes, and everything else
TOKEN_LIMIT = 256
METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE"})
STATIC = Path(__file__).parent / "static"
PAGES = {
    "/": ("index.html", "text/html"),
    **{f"/{script.name}": (script.name, "text/javascript") for script in sorted(STATIC.glob("*.js"))},
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

ANSWERS = web.AppKey("answers", Metric)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(services: Services, registry: CollectorRegistry, routes: Sequence[Route] = ALL) -> web.Application:
    """Return the application; whoever runs it owns its life."""
    app = web.Application(client_max_size=BODY_LIMIT, middlewares=[_guard])
    app[ANSWERS] = Metric("fedmesh_http_answers", "Answers over HTTP.", ["method", "status"], registry=registry)
    app.on_response_prepare.append(_finish)
    app[STREAMS] = Counter()
    app[AT_ONCE] = Counter()

    async def authenticate(request: web.Request) -> User:
        return await services.accounts.authenticate(_bearer(request))

    app[AUTHENTICATE] = authenticate
    for route in routes:
        app.router.add_route(route.method, PREFIX + route.path, serve(route, services, authenticate))
    app.router.add_get(PREFIX + "/openapi.json", _fixed(json.dumps(describe(routes)).encode(), "application/json"))
    for path, (name, content_type) in PAGES.items():
        app.router.add_get(path, _fixed((STATIC / name).read_bytes(), content_type))
    add_health_routes(app, services.missing, registry)
    return app


def _fixed(body: bytes, content_type: str) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(
            body=body, content_type=content_type, charset="utf-8", headers={"Cache-Control": "no-cache"}
        )

    return answer


def _bearer(request: web.Request) -> str:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret or len(secret) > TOKEN_LIMIT:
        raise Unauthenticated("Send your token as `Authorization: Bearer …`; `fed login` gets one.")
    return secret.strip()


async def _finish(request: web.Request, response: web.StreamResponse) -> None:
    method = request.method if request.method in METHODS else "other"  # a stranger must not make up time series
    request.app[ANSWERS].labels(method, response.status).inc()
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except FedError as error:
        return problem_response(error)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = problem_response(
            MethodNotAllowed(f"{request.method[:20]} is not possible here; allowed: {allowed}.")
        )
        response.headers["Allow"] = allowed
        return response
    except web.HTTPNotFound:
        return problem_response(NoSuchPath("There is nothing under this path; see /api/v1/openapi.json."))
    except web.HTTPException as error:
        return problem_response(_of_status(error))
    except ConnectionResetError:
        raise  # the client went away; there is nobody to answer
    except Exception:
        incident = uuid.uuid4().hex
        log.exception("request_failed", incident=incident, method=request.method, path=request.path)
        return problem_response(FedError("This is our fault; report it with the incident's id.", incident=incident))


def _of_status(error: web.HTTPException) -> WebError:
    problem = WebError(error.reason)
    problem.http = error.status  # type: ignore[misc] # an answer of aiohttp itself, such as 417
    return problem
