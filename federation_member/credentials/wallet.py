"""The wallet: credentials that others gave a user, kept at home and shown to nobody who does not need them.

A lender that refuses says which sets of statements were missing. `complete` finds the credentials that say one of them, or from which
one of them follows, and no others. Kept and sent is the compact form, the one
that requests to lenders carry.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, insert, select

from federation_member.credentials.errors import CredentialExpired, TooMuchKept, UnknownCredential
from federation_member.credentials.tables import kept
from fedkit.policy import compact
from fedkit.policy.model import Credential, Entity, Role, Statement, UnusableStatement
from fedkit.policy.proof import Proof
from fedkit.policy.prover import Prover
from fedkit.store import Tx

CREDENTIALS_PER_ACCOUNT = 200
CREDENTIAL_SIZE = 32 * 1024  # octets of one
SETS_LIMIT = 8  # of what a lender says is missing: more are not looked at
STATEMENTS_LIMIT = 32  # in one of them
STATEMENT_SIZE = 4096  # characters


@dataclass(frozen=True)
class Kept:
    """A credential in a wallet."""

    credential: Credential
    added: datetime


def add(tx: Tx, account: str, credential: Credential, now: datetime) -> bool:
    """Keep a credential; return False if it was kept already. Raises `CredentialExpired`, `TooMuchKept`, `TwoKeys`."""
    tx.conn.execute(delete(kept).where(kept.c.account == account, kept.c.expires <= now))
    if credential.expires <= now:
        raise CredentialExpired(f"This credential expired at {credential.expires:%F %T} UTC.")
    mine = kept.c.account == account
    if tx.conn.execute(select(kept.c.id).where(mine, kept.c.id == credential.id)).first() is not None:
        return False
    number = tx.conn.execute(select(func.count()).select_from(kept).where(mine)).scalar_one()
    if number >= CREDENTIALS_PER_ACCOUNT or len(credential.raw) > CREDENTIAL_SIZE:
        raise TooMuchKept(
            f"One keeps at most {CREDENTIALS_PER_ACCOUNT} credentials of {CREDENTIAL_SIZE} octets; remove some first."
        )
    Prover([*(one.credential for one in content(tx.conn, account)), credential])  # raises for two keys of one fedid
    tx.conn.execute(
        insert(kept).values(
            account=account,
            id=credential.id,
            text=credential.raw.decode(),
            expires=credential.expires,
            added=now,
        )
    )
    return True


def remove(tx: Tx, account: str, credential_id: str) -> None:
    """Keep a credential no longer; raises `UnknownCredential`."""
    gone = tx.conn.execute(delete(kept).where(kept.c.account == account, kept.c.id == credential_id))
    if gone.rowcount != 1:
        raise UnknownCredential("You keep no credential of that id.")


def forget_account(tx: Tx, account: str) -> None:
    """Empty the wallet of an account that is no more."""
    tx.conn.execute(delete(kept).where(kept.c.account == account))


def content(conn: Connection, account: str) -> list[Kept]:
    """What an account keeps, oldest first."""
    rows = conn.execute(select(kept).where(kept.c.account == account).order_by(kept.c.added, kept.c.id))
    return [Kept(compact.read(row.text), row.added) for row in rows]


def complete(wallet: Iterable[Credential], missing: Sequence[Sequence[str]], at: datetime) -> list[Credential]:
    """Return the credentials that complete the first of these sets for which that can be done; none if it cannot."""
    held = [credential for credential in wallet if credential.holds_at(at)]
    if not held:
        return []
    prover = Prover(held)
    for wanted in missing[:SETS_LIMIT]:
        found = _provide(prover, held, wanted, at)
        if found:
            return found
    return []


def successors(wallet: Iterable[Credential], sent: Iterable[str], at: datetime) -> list[Credential]:
    """Return what says now, and longest, what each of the credentials `sent` (as statements) said."""
    wanted = set(sent)
    best: dict[str, Credential] = {}
    for credential in wallet:
        statement = str(credential.statement)
        known = best.get(statement)
        if statement in wanted and credential.holds_at(at) and (known is None or known.expires < credential.expires):
            best[statement] = credential
    return list(best.values())


def _provide(prover: Prover, held: list[Credential], wanted: Sequence[str], at: datetime) -> list[Credential]:
    if not 0 < len(wanted) <= STATEMENTS_LIMIT:
        return []
    found: dict[str, Credential] = {}
    for text in wanted:
        used = _say(prover, held, text, at)
        if not used:
            return []
        found |= {credential.id: credential for credential in used}
    return list(found.values())


def _say(prover: Prover, held: list[Credential], text: str, at: datetime) -> list[Credential]:
    """The credentials that say a statement, or from which it follows."""
    if len(text) > STATEMENT_SIZE:
        return []
    try:
        statement = Statement.parse(text)
    except UnusableStatement:
        return []  # a lender's word, which nobody here can help
    same = [credential for credential in held if credential.statement == statement]
    if same:
        return [max(same, key=lambda credential: credential.expires)]
    if len(statement.tail) == 1 and isinstance(statement.tail[0], Entity | Role):
        answer = prover.prove(statement.head, statement.tail[0], at)
        if isinstance(answer, Proof):
            return list(answer.credentials)
    return []
