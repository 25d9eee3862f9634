"""Experiments: their tables.

Revision ID: experiments_0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("fedid", sa.String(40), nullable=False),
        sa.Column("private", sa.LargeBinary, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("routing", sa.Text),
        sa.Column("services", sa.Text, nullable=False),
        sa.Column("portals", sa.Integer, nullable=False),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
        sa.Column("valid_until", sa.BigInteger),
        sa.Column("warned", sa.Boolean, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
    )
    op.create_index("experiments_by_owner", "experiments", ["owner", "created"])
    op.create_index("experiments_by_state", "experiments", ["state"])
    op.create_table(
        "experiment_segments",
        sa.Column("experiment_id", sa.String(36), sa.ForeignKey("experiments.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("testbed", sa.Text, nullable=False),
        sa.Column("order_id", sa.String(36), nullable=False),
        sa.Column("told_lease", sa.String(36)),
        sa.Column("told", sa.Text),
    )
    op.create_index("experiment_segments_by_order", "experiment_segments", ["order_id"])
    op.create_table(
        "experiment_events",
        sa.Column("experiment_id", sa.String(36), sa.ForeignKey("experiments.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
