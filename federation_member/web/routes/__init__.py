"""The operations of the API, one file for each part."""

from federation_member.web.routes import (
    attachments,
    audit,
    credentials,
    experiments,
    federation,
    login,
    meta,
    operations,
    orders,
    previews,
    sessions,
    tokens,
    usage,
)
from federation_member.web.routing import Route

ALL: tuple[Route, ...] = (
    *meta.routes,
    *tokens.routes,
    *sessions.routes,
    *login.routes,
    *orders.routes,
    *operations.routes,
    *experiments.routes,
    *attachments.routes,
    *previews.routes,
    *credentials.routes,
    *federation.routes,
    *audit.routes,
    *usage.routes,
)
