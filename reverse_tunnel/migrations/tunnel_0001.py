"""The port book, and the mesh's own tables."""

import sqlalchemy as sa
from alembic import op

from fedkit.mesh.tables import create_mesh_tables

revision = "tunnel_0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    create_mesh_tables(op.get_bind())
    op.create_table(
        "tunnel_leases",
        sa.Column("controller", sa.String(40), primary_key=True),
        sa.Column("lease_id", sa.String(36), primary_key=True),
        sa.Column("address", sa.String(253), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False, unique=True),
        sa.Column("ports", sa.Integer, nullable=False),
        sa.Column("expires", sa.Double, nullable=False, index=True),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_table(
        "tunnel_ports",
        sa.Column("port", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("controller", sa.String(40)),
        sa.Column("lease_id", sa.String(36)),
        sa.Column("name", sa.String(64)),
        sa.Column("up", sa.Boolean, nullable=False),
        sa.Column("freed", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["controller", "lease_id"], ["tunnel_leases.controller", "tunnel_leases.lease_id"]),
    )
    op.create_index("tunnel_ports_names", "tunnel_ports", ["controller", "lease_id", "name"], unique=True)
    op.create_index("tunnel_ports_free", "tunnel_ports", ["lease_id", "freed", "port"])
