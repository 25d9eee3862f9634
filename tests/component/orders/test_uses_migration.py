"""A store of the release before keeps who uses whom, in both books."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory

import federation_member.migrations
from federation_member.orders.tables import lease_uses, order_uses
from fedkit.migrations import upgrade
from fedkit.protocol.lending import ComputeSpec
from fedkit.store import Database

OLD = ("orders_0001", "orders_0002", "orders_0003")
MACHINE, NETWORK = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
WORDS = ("project", "owner", "state", "code", "reason", "tunnels")
NUMBERS = ("created", "changed", "revision")
ORDER = dict.fromkeys((*WORDS, "type", "kind", "spec", "batch"), "") | dict.fromkeys(
    (*NUMBERS, "lease_seconds", "round", "failures"), 1
)
LEASE = dict.fromkeys((*WORDS, "borrower", "address", "account"), "") | dict.fromkeys(
    (*NUMBERS, "expires", "tunnel_revision"), 1
)


def test_machines_keep_their_networks(database_url: str) -> None:
    db = Database(database_url)
    folder = federation_member.migrations.__path__[0]
    script = ScriptDirectory(folder, version_locations=[folder])
    with db.engine.begin() as connection:
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            for name in OLD:
                script.get_revision(name).module.upgrade()
                context.stamp(script, name)
        for order_id in (MACHINE, NETWORK):
            _insert(connection, "orders", ORDER | {"id": order_id})
        _insert(connection, "order_networks", {"order_id": MACHINE, "network_id": NETWORK})
        joined = ComputeSpec(image="debian", networks=[NETWORK, NETWORK]).model_dump_json()
        _insert(connection, "leases", LEASE | {"id": MACHINE, "kind": "compute", "spec": joined})
        _insert(connection, "leases", LEASE | {"id": NETWORK, "kind": "network", "spec": "{}"})
    upgrade(db.engine, "federation_member.migrations")
    with db.engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(sa.select(order_uses))] == [(MACHINE, NETWORK)]
        assert [tuple(row) for row in connection.execute(sa.select(lease_uses))] == [(MACHINE, NETWORK)]
    db.engine.dispose()


def _insert(connection: sa.Connection, table: str, values: Mapping[str, object]) -> None:
    columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    connection.execute(sa.text(f"INSERT INTO {table} ({columns}) VALUES ({places})"), dict(values))
