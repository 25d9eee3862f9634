"""The list of members, and the mesh's own tables."""

import sqlalchemy as sa
from alembic import op

from fedkit.mesh.tables import create_mesh_tables

revision = "rendezvous_0001"
down_revision = None


def upgrade() -> None:
    """Create the first tables."""
    create_mesh_tables(op.get_bind())
    op.create_table(
        "rendezvous_list",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.String(32), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("floor", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "rendezvous_members",
        sa.Column("fedid", sa.String(40), primary_key=True),
        sa.Column("address", sa.String(253), nullable=False),
        sa.Column("signed", sa.Text, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("issued", sa.Double, nullable=False),
        sa.Column("ttl", sa.Integer, nullable=False),
        sa.Column("alive", sa.Boolean, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, unique=True),
        sa.Column("told", sa.BigInteger, nullable=False),
        sa.Column("notice", sa.String(64)),
        sa.Column("silent", sa.Boolean, nullable=False),
    )
    op.create_index("rendezvous_members_due", "rendezvous_members", ["alive", "expires"])
