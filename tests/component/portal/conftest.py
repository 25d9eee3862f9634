"""A place for machines; the fixtures are those of the middlewares' tests."""

from tests.component.middleware.conftest import base, site

__all__ = ["base", "site"]
