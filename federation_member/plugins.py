"""Finds kinds of middleware and of identity providers by their entry points, and checks their options before anything starts."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, cast

from pydantic import ValidationError

from federation_member.accounts.providers import IdentityProvider
from federation_member.middleware.contract import Middleware
from fedkit.config import UnusableConfig

MIDDLEWARE = "fedmesh.middleware"
IDENTITY_PROVIDER = "fedmesh.identity_provider"


def find_middleware(kind: str) -> type[Middleware]:
    """Return the class of this kind; raises `UnusableConfig`, naming the kinds that are installed."""
    return cast(type[Middleware], _find(MIDDLEWARE, "middleware", kind))


def find_identity_provider(kind: str) -> type[IdentityProvider]:
    """Return the class of this kind; raises `UnusableConfig`, naming the kinds that are installed."""
    return cast(type[IdentityProvider], _find(IDENTITY_PROVIDER, "identity_provider", kind))


def load_middleware(kind: str, options: dict[str, Any]) -> Middleware:
    """Return the middleware of this kind, made with checked options; making it has no side effects.

    Raises `UnusableConfig` for an unknown kind, or for options that its `Config` refuses.
    """
    return cast(Middleware, _load(find_middleware(kind), "middleware", options))


def load_identity_provider(kind: str, options: dict[str, Any]) -> IdentityProvider:
    """Return the identity provider of this kind, as `load_middleware` does."""
    return cast(IdentityProvider, _load(find_identity_provider(kind), "identity_provider", options))


def _find(group: str, table: str, kind: str) -> Any:
    known = {point.name: point for point in entry_points(group=group)}
    if kind not in known:
        raise UnusableConfig(f"[{table}] kind {kind!r} is not installed; known: {', '.join(sorted(known))}.")
    return known[kind].load()


def _load(plugin: Any, table: str, options: dict[str, Any]) -> Any:
    try:
        config = plugin.Config.model_validate(options)
    except ValidationError as error:
        lines = [f"[{table}.options] {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UnusableConfig("\n  ".join(lines)) from error
    return plugin(config)
