"""The last known list of members.

Revision ID: directory_0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "directory_0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of `federation_member/directory/store.py`."""
    op.create_table(
        "directory_state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("rendezvous", sa.String(40), nullable=False),
        sa.Column("epoch", sa.String(32), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("as_of", sa.Double),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("stamp", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "directory_members",
        sa.Column("fedid", sa.String(40), primary_key=True),
        sa.Column("signed", sa.Text, nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("alive", sa.Boolean, nullable=False),
        sa.Column("last_seen", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("unlisted", sa.Double),
        sa.Column("stamp", sa.BigInteger, nullable=False),
    )
