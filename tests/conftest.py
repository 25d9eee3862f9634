"""Fixtures of every ring: one PostgreSQL for each process of the run, and the checkout as others see it."""

import structlog
from hypothesis import HealthCheck, settings

from tests.support.checkout import open_checkout
from tests.support.databases import database_url, postgres
from tests.support.lanes import pytest_xdist_make_scheduler
from tests.support.long import pytest_addoption, pytest_itemcollected, pytest_runtest_setup
from tests.support.openstack import pytest_collection_modifyitems, real_openstack

__all__ = [
    "database_url",
    "open_checkout",
    "postgres",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_itemcollected",
    "pytest_runtest_setup",
    "pytest_xdist_make_scheduler",
    "real_openstack",
]

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# A trace-back in a log is told plainly: what dies in a test a hundred times would else be drawn with frames and colours.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
