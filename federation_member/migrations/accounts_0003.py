"""Accounts that follow an identity provider: whose they are there.

Revision ID: accounts_0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "accounts_0003"
down_revision = "accounts_0002"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "account_subjects",
        sa.Column("account", sa.String(63), sa.ForeignKey("accounts.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("provider", sa.String(63), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.UniqueConstraint("provider", "subject", name="account_subjects_once"),
    )
