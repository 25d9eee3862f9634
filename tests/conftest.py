"""Fixtures of every ring: one PostgreSQL for the whole run."""

from tests.support.databases import database_url, postgres

__all__ = ["database_url", "postgres"]
