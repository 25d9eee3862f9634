"""Fixtures of every ring: one PostgreSQL for the whole run, and the checkout as others see it."""

from tests.support.checkout import open_checkout
from tests.support.databases import database_url, postgres

__all__ = ["database_url", "open_checkout", "postgres"]
