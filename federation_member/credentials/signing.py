"""Signs what this member says of its users, and what they say of it, no more often than needed.

What is said holds for `LIFE` and is said anew once less than `FRESH` of it is left, so whoever is shown it has that long before it
must be shown a newer one. Everything signed is a row, in the caller's transaction: what was said can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Update, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from federation_member.credentials.tables import signed
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import role_part
from fedkit.policy import compact
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.store import Tx

LIFE = timedelta(hours=24)
FRESH = timedelta(hours=16)


@dataclass(frozen=True)
class Said:
    """A credential as it is sent, what it says and until when."""

    id: str
    statement: str
    text: str
    expires: datetime


def project_role(project: str) -> str:
    """The role that a member gives the users of a project; of none, if that is empty."""
    return f"project_{role_part(project)}" if project else "no_project"


def vouching(member: str, principal: str, project: str, user: str) -> list[Statement]:
    """What a member says of its user in a project (or in none, if that is empty)."""
    roles = ("user", project_role(project), f"user_{role_part(user)}")
    return [Statement(Role(member, role), (Entity(principal),)) for role in roles]


def mandate(principal: str, member: str) -> Statement:
    """By which a user lets a member act for them."""
    return Statement(Role(principal, "acting_for"), (Entity(member),))


def say(tx: Tx, account: str, key: PrivateKey, statements: Sequence[Statement], now: datetime) -> list[Said]:
    """Return credentials that say this, signed by `key`, each with at least `FRESH` to live."""
    known = valid(tx.conn, account, statements, now + FRESH)
    return [known.get(str(statement)) or _sign(tx, account, key, statement, now) for statement in statements]


def valid(conn: Connection, account: str, statements: Iterable[Statement], at: datetime) -> dict[str, Said]:
    """Return what was said, is not revoked and holds beyond `at`, by statement; the one that holds longest."""
    query = (
        select(signed.c.id, signed.c.statement, signed.c.text, signed.c.expires)
        .where(signed.c.account == account, signed.c.expires > at, signed.c.revoked.is_(None))
        .where(signed.c.statement.in_([str(statement) for statement in statements]))
        .order_by(signed.c.expires)
    )
    return {row.statement: Said(row.id, row.statement, row.text, row.expires) for row in conn.execute(query)}


def keep(tx: Tx, account: str, credential: Credential) -> None:
    """Write down what was signed (here, or by a user elsewhere for us)."""
    row = insert(signed).values(
        id=credential.id,
        account=account,
        issuer=credential.issuer.fedid,
        statement=str(credential.statement),
        text=credential.raw.decode(),
        expires=credential.expires,
    )
    # Another process may say the very same at this moment. Both databases understand the same clause.
    tx.conn.execute(row.on_conflict_do_nothing())


def revoke(tx: Tx, account: str, now: datetime) -> None:
    """Mark all that was signed for an account as revoked."""
    tx.conn.execute(_alive(account, now).values(revoked=now))


def revoke_roles(tx: Tx, account: str, roles: Sequence[str], now: datetime) -> None:
    """Mark as revoked what gave an account any of these roles, whoever's."""
    said = [signed.c.statement.like(f"{'_' * 40}.{_escape(role)} <- %", escape="\\") for role in roles]
    if said:
        tx.conn.execute(_alive(account, now).where(or_(*said)).values(revoked=now))


def revoked_by(conn: Connection, issuer: str, now: datetime) -> list[tuple[str, datetime]]:
    """Return id and expiry of whatever this issuer signed here, is revoked and would still hold."""
    query = select(signed.c.id, signed.c.expires).where(
        signed.c.issuer == issuer, signed.c.revoked.is_not(None), signed.c.expires > now
    )
    return [(row.id, row.expires) for row in conn.execute(query.order_by(signed.c.expires, signed.c.id))]


def forget_expired(tx: Tx, now: datetime) -> None:
    """Forget what holds no more."""
    tx.conn.execute(delete(signed).where(signed.c.expires <= now))


def _alive(account: str, now: datetime) -> Update:
    return update(signed).where(signed.c.account == account, signed.c.revoked.is_(None), signed.c.expires > now)


def _escape(text: str) -> str:
    return text.replace("_", "\\_")


def _sign(tx: Tx, account: str, key: PrivateKey, statement: Statement, now: datetime) -> Said:
    expires = now + LIFE
    credential = compact.issue(key, statement, expires)
    while tx.conn.execute(select(signed.c.id).where(signed.c.id == credential.id)).first() is not None:
        # It says the same until the same second as one that was revoked, which is the same to whoever knows that.
        expires += timedelta(seconds=1)
        credential = compact.issue(key, statement, expires)
    keep(tx, account, credential)
    return Said(credential.id, str(statement), credential.raw.decode(), credential.expires)
