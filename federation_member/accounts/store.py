"""The tables of accounts, their keys, projects and tokens, and the statements on them.

Neither a password nor a token is ever stored: of a password an Argon2id hash, of a token (256 random bits, so that
guessing is hopeless and a slow hash would buy nothing) its SHA-256. A user's private key is stored only where the member
keeps it for a user who has none (`custodial`); it is read to sign for that user and shown to nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)

from federation_member.orders.tables import Instant
from fedkit.identity.keys import PrivateKey, PublicKey
from fedkit.store import Tx

metadata = MetaData()

accounts = Table(
    "accounts",
    metadata,
    Column("name", String(63), primary_key=True),
    Column("password_hash", String(255), nullable=False),
    Column("created", Instant, nullable=False),
    Column("operator", Boolean, nullable=False, server_default="0"),
    Column("suspended", Instant),
)

account_projects = Table(
    "account_projects",
    metadata,
    Column("account", String(63), ForeignKey("accounts.name", ondelete="CASCADE"), primary_key=True),
    Column("project", String(63), primary_key=True),
    Column("position", Integer, nullable=False),
)

account_keys = Table(
    "account_keys",
    metadata,
    Column("account", String(63), ForeignKey("accounts.name", ondelete="CASCADE"), primary_key=True),
    Column("fedid", String(40), nullable=False, unique=True),
    Column("spki", LargeBinary, nullable=False),
    Column("private", LargeBinary),
    Column("since", Instant, nullable=False),
)

account_subjects = Table(
    # Accounts that follow an identity provider: whose they are there.
    "account_subjects",
    metadata,
    Column("account", String(63), ForeignKey("accounts.name", ondelete="CASCADE"), primary_key=True),
    Column("provider", String(63), nullable=False),
    Column("subject", String(255), nullable=False),
    UniqueConstraint("provider", "subject", name="account_subjects_once"),
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
    """One person of this site. The first of `projects` is the one that they order for unless they say another."""

    name: str
    projects: tuple[str, ...]
    principal: str  # fedid
    custodial: bool  # whether the member keeps the private key
    operator: bool
    suspended: datetime | None
    created: datetime

    @property
    def project(self) -> str:
        """The default project; empty for somebody in none."""
        return self.projects[0] if self.projects else ""


@dataclass(frozen=True)
class Token:
    """A personal access token, without its secret."""

    id: str
    label: str
    created: datetime
    expires: datetime


_ACCOUNT = select(
    accounts.c.name,
    accounts.c.created,
    accounts.c.operator,
    accounts.c.suspended,
    account_keys.c.fedid,
    account_keys.c.private.is_not(None).label("custodial"),
).join(account_keys, account_keys.c.account == accounts.c.name)


# Accounts


def add_account(tx: Tx, name: str, password_hash: str, created: datetime, *, operator: bool) -> bool:
    """Write a new account, still without key and projects; return False if the name is taken."""
    taken = tx.conn.execute(select(accounts.c.name).where(accounts.c.name == name)).first()
    if taken is not None:
        return False
    tx.conn.execute(insert(accounts).values(name=name, password_hash=password_hash, created=created, operator=operator))
    return True


def set_password(tx: Tx, name: str, password_hash: str) -> bool:
    """Replace a password and revoke all tokens obtained with the old one; return False for an unknown name."""
    changed = tx.conn.execute(update(accounts).where(accounts.c.name == name).values(password_hash=password_hash))
    tx.conn.execute(delete(tokens).where(tokens.c.account == name))
    return changed.rowcount == 1


def suspend(tx: Tx, name: str, since: datetime | None) -> bool:
    """Write down since when nothing may be done in this account's name (None: it may); return False if unknown."""
    query = update(accounts).where(accounts.c.name == name)
    return tx.conn.execute(query.values(suspended=since)).rowcount == 1


def remove_account(tx: Tx, name: str) -> bool:
    """Remove an account with all that hangs on it; return False for an unknown name."""
    for table in (tokens, account_projects, account_keys, account_subjects):
        tx.conn.execute(delete(table).where(table.c.account == name))
    return tx.conn.execute(delete(accounts).where(accounts.c.name == name)).rowcount == 1


def load_account(conn: Connection, name: str) -> Account | None:
    """Read one account."""
    row = conn.execute(_ACCOUNT.where(accounts.c.name == name)).first()
    return None if row is None else _account(row, projects_of(conn, name))


def list_accounts(conn: Connection) -> list[Account]:
    """All accounts, by name."""
    rows = conn.execute(_ACCOUNT.order_by(accounts.c.name)).all()
    return [_account(row, projects_of(conn, row.name)) for row in rows]


def password_hash_of(conn: Connection, name: str) -> str | None:
    """The stored hash, or None for an unknown name."""
    return conn.execute(select(accounts.c.password_hash).where(accounts.c.name == name)).scalar()


def projects_of(conn: Connection, name: str) -> tuple[str, ...]:
    """The projects of an account, the default one first."""
    rows = account_projects.c
    query = select(rows.project).where(rows.account == name).order_by(rows.position)
    return tuple(conn.execute(query).scalars())


def set_projects(tx: Tx, name: str, projects: Sequence[str]) -> None:
    """Replace the projects of an account."""
    tx.conn.execute(delete(account_projects).where(account_projects.c.account == name))
    rows = [{"account": name, "project": project, "position": n} for n, project in enumerate(projects)]
    if rows:
        tx.conn.execute(insert(account_projects), rows)


def set_operator(tx: Tx, name: str, *, operator: bool) -> None:
    """Let an account be an operator's, or not."""
    tx.conn.execute(update(accounts).where(accounts.c.name == name).values(operator=operator))


# Identity providers


def account_of_subject(conn: Connection, provider: str, subject: str) -> str | None:
    """The name of the account that follows this user of a provider."""
    t = account_subjects.c
    return conn.execute(select(t.account).where(t.provider == provider, t.subject == subject)).scalar()


def bind(tx: Tx, name: str, provider: str, subject: str) -> None:
    """Let an account follow this user of a provider from now on."""
    tx.conn.execute(insert(account_subjects).values(account=name, provider=provider, subject=subject))


# Keys


def set_key(tx: Tx, name: str, public: PublicKey, private: PrivateKey | None, since: datetime) -> bool:
    """Write the key of an account in place of the one before; return False if it is another account's."""
    keys = account_keys.c
    taken = select(keys.account).where(keys.fedid == public.fedid, keys.account != name)
    if tx.conn.execute(taken).first() is not None:
        return False
    tx.conn.execute(delete(account_keys).where(keys.account == name))
    tx.conn.execute(
        insert(account_keys).values(
            account=name,
            fedid=public.fedid,
            spki=public.spki,
            private=None if private is None else private.pem,
            since=since,
        )
    )
    return True


def public_key_of(conn: Connection, name: str) -> PublicKey | None:
    """The public key of an account; None for an unknown name."""
    spki = conn.execute(select(account_keys.c.spki).where(account_keys.c.account == name)).scalar()
    return None if spki is None else PublicKey(bytes(spki))


def private_key_of(conn: Connection, name: str) -> PrivateKey | None:
    """The key that the member keeps for a user; None where the user keeps it."""
    pem = conn.execute(select(account_keys.c.private).where(account_keys.c.account == name)).scalar()
    return None if pem is None else PrivateKey.from_pem(bytes(pem))


# Tokens


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
    query = _ACCOUNT.join(tokens, tokens.c.account == accounts.c.name)
    row = conn.execute(query.where(tokens.c.sha256 == sha256, tokens.c.expires > now)).first()
    return None if row is None else _account(row, projects_of(conn, row.name))


def list_tokens(conn: Connection, account: str) -> list[Token]:
    """The tokens of an account, oldest first."""
    rows = conn.execute(select(tokens).where(tokens.c.account == account).order_by(tokens.c.created, tokens.c.id))
    return [Token(row.id, row.label, row.created, row.expires) for row in rows]


def remove_token(tx: Tx, account: str, token_id: str) -> bool:
    """Revoke one token of this account; return False if it has none of that id."""
    gone = tx.conn.execute(delete(tokens).where(tokens.c.account == account, tokens.c.id == token_id))
    return gone.rowcount == 1


def _account(row: Row[tuple[object, ...]], projects: tuple[str, ...]) -> Account:
    return Account(row.name, projects, row.fedid, row.custodial, row.operator, row.suspended, row.created)
