"""Whom an experiment's owner let in, and whom no more.

A credential counts until it expires, wherever it was kept; so what is revoked is remembered until then. Whoever has the experiment's
key can sign others that stand in no list. Therefore revoking bars its principal as well, whatever they show, until they are
granted something anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from federation_member.experiments import capability
from federation_member.experiments.errors import NotGranted
from federation_member.experiments.model import Grant
from federation_member.experiments.tables import barred, grants
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.policy.model import Credential
from fedkit.store import Tx

KEPT = 1000  # grants of one experiment that have not expired


@dataclass(frozen=True)
class Granted:
    """One line of the list. `party` is None where all of the experiment may be operated."""

    id: str
    principal: str
    party: str | None
    expires: datetime
    granted: datetime
    revoked: datetime | None


def add(
    tx: Tx, experiment_id: str, key: PrivateKey, principal: str, party: str | None, expires: datetime, now: datetime
) -> Grant:
    """Give a principal a role, and remember it; raises `NotGranted` for more than are kept."""
    role = capability.ROLE if party is None else capability.party_role(party)
    grant = capability.issue(key, principal, expires, role)
    credential_id = compact.read(grant.credential).id
    t = grants.c
    its = t.experiment_id == experiment_id
    tx.conn.execute(delete(grants).where(its, (t.expires <= now) | (t.id == credential_id)))
    if len(listed(tx.conn, experiment_id, now)) >= KEPT:
        raise NotGranted(f"An experiment has at most {KEPT} grants at a time; wait until some expire.")
    row = Granted(credential_id, principal, party, grant.expires, now, None)
    tx.conn.execute(insert(grants).values(experiment_id=experiment_id, **vars(row)))
    this = (barred.c.experiment_id == experiment_id, barred.c.principal == principal)
    tx.conn.execute(delete(barred).where(*this))
    return grant


def revoke(tx: Tx, experiment_id: str, principal: str, now: datetime) -> None:
    """Let a principal in no more, whatever they were given. Repeating is harmless."""
    its = (grants.c.experiment_id == experiment_id, grants.c.principal == principal)
    tx.conn.execute(update(grants).where(*its, grants.c.revoked.is_(None)).values(revoked=now))
    this = (barred.c.experiment_id == experiment_id, barred.c.principal == principal)
    if tx.conn.execute(select(barred.c.at).where(*this)).first() is None:
        tx.conn.execute(insert(barred).values(experiment_id=experiment_id, principal=principal, at=now))


def listed(conn: Connection, experiment_id: str, now: datetime) -> list[Granted]:
    """What was granted and has not expired, the newest first."""
    t = grants.c
    query = select(grants).where(t.experiment_id == experiment_id, t.expires > now)
    rows = conn.execute(query.order_by(t.granted.desc(), t.expires.desc(), t.id))
    return [Granted(row.id, row.principal, row.party, row.expires, row.granted, row.revoked) for row in rows]


def counting(
    conn: Connection, experiment_id: str, principal: str, credentials: Iterable[Credential]
) -> list[Credential]:
    """Those of somebody's credentials that were not revoked; none if they are barred."""
    this = (barred.c.experiment_id == experiment_id, barred.c.principal == principal)
    if conn.execute(select(barred.c.at).where(*this)).first() is not None:
        return []
    its = (grants.c.experiment_id == experiment_id, grants.c.revoked.is_not(None))
    revoked = set(conn.execute(select(grants.c.id).where(*its)).scalars())
    return [credential for credential in credentials if credential.id not in revoked]
