"""Portals of closed sites hold ports of our tunnel server.

Revision ID: experiments_0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0007"
down_revision = "experiments_0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "experiment_relays",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("experiment_id", sa.String(36), sa.ForeignKey("experiments.id"), nullable=False),
        sa.Column("testbed", sa.Text, nullable=False),
        sa.Column("connector", sa.Text, nullable=False),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("server_fedid", sa.String(40), nullable=False),
        sa.Column("server_address", sa.Text, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("port", sa.Text),
        sa.Column("described", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("retry", sa.BigInteger),
    )
    op.create_index("experiment_relays_by_experiment", "experiment_relays", ["experiment_id"])
