"""What this member and its users signed, what users keep, and the revocation lists that go out from here.

Revision ID: credentials_0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "credentials_0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of `federation_member/credentials/tables.py`."""
    op.create_table(
        "credentials_signed",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("issuer", sa.String(40), nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("revoked", sa.BigInteger),
    )
    op.create_index("credentials_signed_by_account", "credentials_signed", ["account", "expires"])
    op.create_index("credentials_signed_by_issuer", "credentials_signed", ["issuer", "revoked"])
    op.create_index("credentials_signed_by_expiry", "credentials_signed", ["expires"])
    op.create_table(
        "credentials_kept",
        sa.Column("account", sa.String(63), primary_key=True),
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("added", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "credentials_lists",
        sa.Column("issuer", sa.String(40), primary_key=True),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("serial", sa.BigInteger, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("signed", sa.Text, nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
    op.create_index("credentials_lists_by_account", "credentials_lists", ["account"])
