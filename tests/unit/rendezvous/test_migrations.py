"""The migrations make exactly the tables that the program uses."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData

from federation_member.directory import store as directory_store
from fedkit.migrations import upgrade
from fedkit.store import Database
from rendezvous import store as rendezvous_store


@pytest.mark.parametrize(
    ("package", "metadata"),
    [
        ("rendezvous.migrations", rendezvous_store.metadata),
        ("federation_member.migrations", directory_store.metadata),
    ],
)
def test_tables_are_as_used(database_url: str, package: str, metadata: MetaData) -> None:
    db = Database(database_url)
    upgrade(db.engine, package)
    with db.engine.connect() as conn:
        context = MigrationContext.configure(
            conn, opts={"include_name": lambda name, kind, _parents: kind != "table" or name in metadata.tables}
        )
        assert compare_metadata(context, metadata) == []
    assert upgrade(db.engine, package) == []
    db.engine.dispose()
