"""Every account gets a key, its projects a table of their own; challenges for log-ins with a key.

Revision ID: accounts_0002
"""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

from fedkit.identity.keys import PrivateKey

revision = "accounts_0002"
down_revision = "accounts_0001"


def upgrade() -> None:
    """Make the tables, move the project of each account, and make a key for each."""
    keys = op.create_table(
        "account_keys",
        sa.Column("account", sa.String(63), sa.ForeignKey("accounts.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("fedid", sa.String(40), nullable=False, unique=True),
        sa.Column("spki", sa.LargeBinary, nullable=False),
        sa.Column("private", sa.LargeBinary),
        sa.Column("since", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "account_projects",
        sa.Column("account", sa.String(63), sa.ForeignKey("accounts.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("project", sa.String(63), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_table(
        "login_challenges",
        sa.Column("nonce", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(63), nullable=False),
        sa.Column("expires", sa.BigInteger, nullable=False),
    )
    op.create_index("login_challenges_by_expiry", "login_challenges", ["expires"])
    op.execute(
        "INSERT INTO account_projects (account, project, position) "
        "SELECT name, project, 0 FROM accounts WHERE project <> ''"
    )
    now = int(time.time() * 1_000_000)
    for (name,) in op.get_bind().execute(sa.text("SELECT name FROM accounts")).all():
        key = PrivateKey.generate()
        row = {"account": name, "fedid": key.fedid, "spki": key.public.spki, "private": key.pem, "since": now}
        op.bulk_insert(keys, [row])
    op.drop_column("accounts", "project")
    op.add_column("accounts", sa.Column("operator", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("accounts", sa.Column("suspended", sa.BigInteger))
