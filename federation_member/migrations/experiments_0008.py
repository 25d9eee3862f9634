"""Desktops are attached to experiments.

Revision ID: experiments_0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "experiments_0008"
down_revision = "experiments_0007"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "experiment_attachments",
        sa.Column("experiment_id", sa.String(36), sa.ForeignKey("experiments.id"), primary_key=True),
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("user", sa.Text, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("told", sa.Text, nullable=False),
    )
