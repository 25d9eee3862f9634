"""Brings a component's tables up to date when it starts.

Each component has a package of revisions (`<component>.migrations`), Alembic's files with `upgrade()` alone: they are only
ever appended, and nobody downgrades. A package may hold several independent chains (`orders_0001`, `web_0001`, …), one for
each room with tables; Alembic keeps one row for the head of each.

All revisions run in one transaction, so a crash leaves the old tables or the new ones. Several processes may start at
once: the first locks out the others, who then find nothing to do.
"""

from __future__ import annotations

import importlib

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

LOCK = 0x6665646D657368  # "fedmesh": PostgreSQL advisory lock of a migration under way


def upgrade(engine: Engine, package: str) -> list[str]:
    """Run every revision of `package` that this database has not seen; return their names, oldest first."""
    folder = importlib.import_module(package).__path__[0]
    script = ScriptDirectory(folder, version_locations=[folder])
    with engine.begin() as connection:
        _lock(connection)
        context = MigrationContext.configure(connection)
        seen = {done.revision for done in script.iterate_revisions(context.get_current_heads(), "base")}
        every = reversed(list(script.walk_revisions()))
        pending = [revision for revision in every if revision.revision not in seen]
        with Operations.context(context):
            for revision in pending:
                revision.module.upgrade()
                context.stamp(script, revision.revision)
    return [revision.revision for revision in pending]


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver is in autocommit mode: fedkit/store.py
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
