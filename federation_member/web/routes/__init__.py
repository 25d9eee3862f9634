"""The operations of the API, one file for each part."""

from federation_member.web.routes import federation, meta, orders, tokens
from federation_member.web.routing import Route

ALL: tuple[Route, ...] = (*meta.routes, *tokens.routes, *orders.routes, *federation.routes)
