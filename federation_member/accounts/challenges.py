"""Log-in with the user's own key: a nonce from here, signed together with the user's word that this member acts for them.

    client ── user ──► nonce ── signed for this member, with U.acting_for <- A ──► the key is the account's: a token

Challenges are rows, for several processes may serve one site; each counts once, for `LIFE`. Strangers may ask for them, so they
are few: of more than `LIMIT` the oldest is forgotten. Whether there is such an account nobody learns from a challenge.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Column, Index, String, Table, delete, func, insert, select

from federation_member.accounts import store
from federation_member.accounts.errors import UnusableMandate, WrongKey
from federation_member.accounts.store import metadata
from federation_member.credentials import signing
from federation_member.orders.tables import Instant
from fedkit.identity import challenge
from fedkit.identity.keys import PublicKey
from fedkit.policy import compact
from fedkit.policy.model import Credential
from fedkit.store import Tx

LIFE = timedelta(minutes=2)
LIMIT = 10_000
LONGEST_MANDATE = timedelta(days=30)
SKEW = timedelta(minutes=5)

login_challenges = Table(
    "login_challenges",
    metadata,
    Column("nonce", String(64), primary_key=True),
    Column("account", String(63), nullable=False),
    Column("expires", Instant, nullable=False),
    Index("login_challenges_by_expiry", "expires"),
)


def begin(tx: Tx, name: str, now: datetime) -> tuple[str, datetime]:
    """Return a nonce for whoever claims to be this user, and until when it counts."""
    rows = login_challenges.c
    tx.conn.execute(delete(login_challenges).where(rows.expires <= now))
    if tx.conn.execute(select(func.count()).select_from(login_challenges)).scalar_one() >= LIMIT:
        oldest = select(rows.nonce).order_by(rows.expires).limit(1)
        tx.conn.execute(delete(login_challenges).where(rows.nonce.in_(oldest)))
    nonce, expires = challenge.new_nonce(), now + LIFE
    tx.conn.execute(insert(login_challenges).values(nonce=nonce, account=name, expires=expires))
    return nonce, expires


def finish(tx: Tx, member: str, name: str, answer: str, acting_for: str, now: datetime) -> Credential:
    """Check an answer and write down what came with it; raises `WrongKey`, `UnusableMandate`, `NotPossessed`."""
    key = possessed(tx, member, name, answer, now, acting_for)
    public = store.public_key_of(tx.conn, name)
    if public is None or public != key or store.private_key_of(tx.conn, name) is not None:
        raise WrongKey("This is not the key of that account; `fed member user key` registers one.")
    mandate = compact.read(acting_for)
    _check_mandate(mandate, key.fedid, member, now)
    signing.keep(tx, name, mandate)
    return mandate


def possessed(tx: Tx, member: str, name: str, answer: str, now: datetime, bound: str = "") -> PublicKey:
    """Use up the challenge that was answered, and return the key that did; raises `WrongKey` or `NotPossessed`."""
    nonce = challenge.nonce_of(answer)
    rows = login_challenges.c
    used = delete(login_challenges).where(rows.nonce == nonce, rows.account == name, rows.expires > now)
    if tx.conn.execute(used).rowcount != 1:
        raise WrongKey("This challenge is not known, was used, or is too old; ask for another.")
    return challenge.check(answer, nonce, member, name, bound)


def _check_mandate(mandate: Credential, principal: str, member: str, now: datetime) -> None:
    wanted = signing.mandate(principal, member)
    if mandate.statement != wanted:
        raise UnusableMandate(f"What lets this member act for you says {wanted}, and nothing else.")
    if not mandate.holds_at(now):
        raise UnusableMandate("What lets this member act for you does not hold now; compare the clocks.")
    if mandate.expires > now + LONGEST_MANDATE + SKEW:
        raise UnusableMandate(f"What lets this member act for you may hold for {LONGEST_MANDATE.days} days at most.")
