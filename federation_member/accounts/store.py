"""The tables of accounts and tokens, and the statements on them.

Neither a password nor a token is ever stored: of a password an Argon2id hash, of a token (256 random bits, so that
guessing is hopeless and a slow hash would buy nothing) its SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Column, Connection, ForeignKey, MetaData, String, Table, delete, func, insert, select, update

from federation_member.orders.tables import Instant
from fedkit.store import Tx

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("project", String(63), nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("created", Instant, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("account", String(63), ForeignKey("accounts.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("label", String(64), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created", Instant, nullable=False),
    Column("expires", Instant, nullable=False),
)


@dataclass(frozen=True)
class Account:
    """One person of this site."""

    name: str
    project: str
    created: datetime


@dataclass(frozen=True)
class Token:
    """A personal access token, without its secret."""

    id: str
    label: str
    created: datetime
    expires: datetime


def add_account(tx: Tx, account: Account, password_hash: str) -> bool:
    """Write a new account; return False if the name is taken."""
    taken = tx.conn.execute(select(accounts.c.name).where(accounts.c.name == account.name)).first()
    if taken is not None:
        return False
    tx.conn.execute(
        insert(accounts).values(
            name=account.name,
            project=account.project,
            password_hash=password_hash,
            created=account.created,
        )
    )
    return True


def set_password(tx: Tx, name: str, password_hash: str) -> bool:
    """Replace a password and revoke all tokens obtained with the old one; return False for an unknown name."""
    changed = tx.conn.execute(update(accounts).where(accounts.c.name == name).values(password_hash=password_hash))
    tx.conn.execute(delete(tokens).where(tokens.c.account == name))
    return changed.rowcount == 1


def remove_account(tx: Tx, name: str) -> bool:
    """Remove an account and its tokens; return False for an unknown name."""
    tx.conn.execute(delete(tokens).where(tokens.c.account == name))
    return tx.conn.execute(delete(accounts).where(accounts.c.name == name)).rowcount == 1


def list_accounts(conn: Connection) -> list[Account]:
    """All accounts, by name."""
    rows = conn.execute(select(accounts).order_by(accounts.c.name))
    return [Account(row.name, row.project, row.created) for row in rows]


def password_hash_of(conn: Connection, name: str) -> str | None:
    """The stored hash, or None for an unknown name."""
    return conn.execute(select(accounts.c.password_hash).where(accounts.c.name == name)).scalar()


def add_token(tx: Tx, account: str, token: Token, sha256: str, limit: int) -> bool:
    """Write a token, and forget the expired ones; return False if the account holds `limit` valid ones already."""
    tx.conn.execute(delete(tokens).where(tokens.c.account == account, tokens.c.expires <= token.created))
    held = tx.conn.execute(select(func.count()).select_from(tokens).where(tokens.c.account == account)).scalar_one()
    if held >= limit:
        return False
    tx.conn.execute(
        insert(tokens).values(
            id=token.id,
            account=account,
            label=token.label,
            sha256=sha256,
            created=token.created,
            expires=token.expires,
        )
    )
    return True


def account_of_token(conn: Connection, sha256: str, now: datetime) -> Account | None:
    """Whose token this is; None if unknown or expired."""
    row = conn.execute(
        select(accounts.c.name, accounts.c.project, accounts.c.created)
        .join(tokens, tokens.c.account == accounts.c.name)
        .where(tokens.c.sha256 == sha256, tokens.c.expires > now)
    ).first()
    return Account(row.name, row.project, row.created) if row else None


def list_tokens(conn: Connection, account: str) -> list[Token]:
    """The tokens of an account, oldest first."""
    rows = conn.execute(select(tokens).where(tokens.c.account == account).order_by(tokens.c.created, tokens.c.id))
    return [Token(row.id, row.label, row.created, row.expires) for row in rows]


def remove_token(tx: Tx, account: str, token_id: str) -> bool:
    """Revoke one token of this account; return False if it has none of that id."""
    gone = tx.conn.execute(delete(tokens).where(tokens.c.account == account, tokens.c.id == token_id))
    return gone.rowcount == 1
