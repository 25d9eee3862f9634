"""Revocation lists.

Revision ID: directory_0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "directory_0002"
down_revision = "directory_0001"


def upgrade() -> None:
    """Create the table of `federation_member/directory/revocations.py`; the whole list is read anew, to learn what is revoked."""
    op.create_table(
        "directory_revocations",
        sa.Column("issuer", sa.String(40), primary_key=True),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("signed", sa.Text, nullable=False),
        sa.Column("expires", sa.Double, nullable=False),
    )
    op.execute("UPDATE directory_state SET epoch = '', revision = 0")
