"""A store of the release before keeps its accounts: each gets a key, and its project."""

from __future__ import annotations

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

import federation_member.migrations
from federation_member.accounts import store
from fedkit.migrations import upgrade
from fedkit.store import Database

OLD = ("accounts_0001", "orders_0001", "directory_0001", "mesh_0001")


def test_accounts_of_before_get_keys_and_projects(database_url: str) -> None:
    db = Database(database_url)
    folder = federation_member.migrations.__path__[0]
    script = ScriptDirectory(folder, version_locations=[folder])
    with db.engine.begin() as connection:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            for name in OLD:
                revision = script.get_revision(name)
                revision.module.upgrade()
                context.stamp(script, name)
        for name in ("alice", "bob"):
            insert = "INSERT INTO accounts (name, project, password_hash, created) VALUES (:name, 'physics', 'x', 1)"
            connection.execute(sa.text(insert), {"name": name})
            token = "INSERT INTO tokens (id, account, label, sha256, created, expires) VALUES (:name, :name, '', :name, 1, 2)"
            connection.execute(sa.text(token), {"name": name})
    upgrade(db.engine, "federation_member.migrations")
    with db.engine.connect() as connection:
        found = store.list_accounts(connection)
        assert [(one.name, one.projects, one.custodial, one.operator) for one in found] == [
            ("alice", ("physics",), True, False),
            ("bob", ("physics",), True, False),
        ]
        assert len({one.principal for one in found}) == 2
        for one in found:
            key = store.private_key_of(connection, one.name)
            assert key is not None
            assert key.fedid == one.principal
            assert len(store.list_tokens(connection, one.name)) == 1
    db.engine.dispose()
