"""Fixtures of every ring: one PostgreSQL for each process of the run, and the checkout as others see it."""

from hypothesis import HealthCheck, settings

from tests.support.checkout import open_checkout
from tests.support.databases import database_url, postgres
from tests.support.lanes import pytest_xdist_make_scheduler
from tests.support.openstack import pytest_collection_modifyitems

__all__ = ["database_url", "open_checkout", "postgres", "pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
