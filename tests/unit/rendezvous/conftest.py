"""A list on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fedkit.migrations import upgrade
from fedkit.store import Database
from rendezvous import store
from tests.unit.rendezvous.support import Book


@pytest.fixture
def book(database_url: str) -> Iterator[Book]:
    """An empty list."""
    db = Database(database_url)
    upgrade(db.engine, "rendezvous.migrations")
    book = Book(db)
    book.write(lambda tx: store.create_list(tx, "0" * 32))
    yield book
    db.engine.dispose()
