"""Fixtures of every ring: one PostgreSQL for each process of the run, and the checkout as others see it."""

from tests.support.checkout import open_checkout
from tests.support.databases import database_url, postgres
from tests.support.lanes import pytest_xdist_make_scheduler

__all__ = ["database_url", "open_checkout", "postgres", "pytest_xdist_make_scheduler"]
