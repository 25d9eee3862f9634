"""Finds a kind of middleware by its entry point, and checks its options before anything starts."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, cast

from pydantic import ValidationError

from federation_member.middleware.contract import Middleware
from fedkit.config import UnusableConfig

MIDDLEWARE = "fedmesh.middleware"


def find_middleware(kind: str) -> type[Middleware]:
    """Return the class of this kind; raises `UnusableConfig`, naming the kinds that are installed."""
    known = {point.name: point for point in entry_points(group=MIDDLEWARE)}
    if kind not in known:
        raise UnusableConfig(f"[middleware] kind {kind!r} is not installed; known: {', '.join(sorted(known))}.")
    return cast(type[Middleware], known[kind].load())


def load_middleware(kind: str, options: dict[str, Any]) -> Middleware:
    """Return the middleware of this kind, made with checked options; making it has no side effects.

    Raises `UnusableConfig` for an unknown kind, or for options that its `Config` refuses.
    """
    plugin = find_middleware(kind)
    try:
        config = plugin.Config.model_validate(options)
    except ValidationError as error:
        lines = [f"[middleware.options] {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise UnusableConfig("\n  ".join(lines)) from error
    return plugin(config)
