"""The mesh's tables, which live in the member's own database."""

from __future__ import annotations

from alembic import op

from fedkit.mesh.tables import create_mesh_tables

revision = "mesh_0001"
down_revision = None


def upgrade() -> None:
    """Make the tables of `fedkit/mesh/tables.py`."""
    create_mesh_tables(op.get_bind())
