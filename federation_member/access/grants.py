"""Grants: who has what of this member, why, and until when; rows read and written inside the caller's transaction.

A grant has its own key pair, whose fedid is the allocation's id. The private half stays in its row, is shown to nobody, and
is destroyed at release; then nothing can be signed with it any more, and what was signed has ended with the lease.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from federation_member.access.model import Action, How
from federation_member.access.tables import grant_credentials, grants
from federation_member.middleware.contract import AccountKind, AccountSpec
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import Name
from fedkit.mesh.api import Peer
from fedkit.policy.model import Credential

KINDS = {How.RIGHTS: AccountKind.EXISTING, How.CREATE: AccountKind.CREATED}  # of accounts that grants change
MANAGED = tuple(how.value for how in KINDS)


@dataclass(frozen=True)
class LocalAccount:
    """What a rule's mapping came to."""

    how: How
    name: str
    certificate: Path | None = None


@dataclass(frozen=True)
class Grant:
    """One grant, as a row."""

    lease_id: str
    key: PrivateKey | None  # none once it is released
    allocation: str
    authority: str  # the public half, as OpenSSH writes it
    member: Peer
    name: Name
    principal: str
    action: Action
    keys: tuple[str, ...]
    rule: str
    account: LocalAccount
    world: str
    credentials: tuple[str, ...]  # names of the texts that the borrower sent
    proof: Mapping[str, Any]
    proved_until: datetime
    problem: str
    until: datetime
    active: bool
    created: datetime


def load(conn: Connection, lease_id: str, *, lock: bool = False) -> Grant | None:
    """Read one grant."""
    query = select(grants).where(grants.c.lease_id == lease_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    return None if row is None else _grant(row)


def active(conn: Connection) -> list[Grant]:
    """Every grant that has not been released."""
    return [_grant(row) for row in conn.execute(select(grants).where(grants.c.active == 1))]


def add(conn: Connection, grant: Grant, used: Iterable[Credential], now: datetime) -> None:
    """Write a new grant."""
    conn.execute(
        insert(grants).values(
            lease_id=grant.lease_id,
            allocation=grant.allocation,
            public_key=grant.authority,
            member=grant.member.fedid,
            address=grant.member.address,
            name=str(grant.name),
            principal=grant.principal,
            action=_action(grant.action),
            keys=json.dumps(grant.keys),
            rule=grant.rule,
            how=grant.account.how.value,
            account=grant.account.name,
            certificate=None if grant.account.certificate is None else str(grant.account.certificate),
            created=grant.created,
            **_columns(grant, now),
        )
    )
    _rest_on(conn, grant.lease_id, used)


def save(
    conn: Connection, grant: Grant, now: datetime, used: Iterable[Credential] | None = None, **changes: Any
) -> Grant:
    """Write changes to a grant and return it; `used` is what a new proof rests on."""
    new = replace(grant, **changes)
    conn.execute(update(grants).where(grants.c.lease_id == grant.lease_id).values(**_columns(new, now)))
    if used is not None:
        _rest_on_nothing(conn, grant.lease_id)
        _rest_on(conn, grant.lease_id, used)
    return new


def release(conn: Connection, grant: Grant, now: datetime) -> Grant:
    """End a grant: its key is destroyed."""
    return save(conn, grant, now, used=(), active=False, key=None)


def forget(conn: Connection, lease_id: str) -> None:
    """Remove a released grant; the audit log keeps what it was."""
    conn.execute(delete(grants).where(grants.c.lease_id == lease_id, grants.c.active == 0))


def counts(conn: Connection) -> dict[str, int]:
    """How many grants exist under each rule under which there are any."""
    query = select(grants.c.rule, func.count().label("number")).where(grants.c.active == 1).group_by(grants.c.rule)
    return {row.rule: row.number for row in conn.execute(query)}


def resting_on(conn: Connection, issuer: str, credential_ids: Iterable[str]) -> list[tuple[str, str]]:
    """The active grants whose proof uses one of these credentials of an issuer: (lease id, credential id)."""
    t = grant_credentials.c
    wanted = list(credential_ids)
    query = select(t.lease_id, t.credential_id).where(t.issuer == issuer, t.credential_id.in_(wanted))
    return [(row.lease_id, row.credential_id) for row in conn.execute(query.order_by(t.lease_id, t.credential_id))]


def uses_of_certificates(conn: Connection) -> dict[str, int]:
    """How many active grants use each certificate, by path."""
    query = select(grants.c.certificate, func.count().label("number")).where(
        grants.c.active == 1, grants.c.certificate.is_not(None)
    )
    return {row.certificate: row.number for row in conn.execute(query.group_by(grants.c.certificate))}


def other_user_of(conn: Connection, account: str, name: Name) -> str | None:
    """The name of somebody of another testbed or project for whom this created account exists."""
    query = select(grants.c.name).where(
        grants.c.account == account, grants.c.how == How.CREATE.value, grants.c.active == 1
    )
    for text in conn.execute(query).scalars():
        other = Name.parse(text)
        if (other.testbed, other.project) != (name.testbed, name.project):
            return str(text)
    return None


def managed_accounts(conn: Connection) -> set[str]:
    """Every account that an active grant has the middleware make or change."""
    query = select(grants.c.account).where(grants.c.active == 1, grants.c.how.in_(MANAGED)).distinct()
    return set(conn.execute(query).scalars())


def wanted(conn: Connection, account: str) -> AccountSpec | None:
    """How an account has to be while its grants last; none if none is left."""
    query = select(grants).where(grants.c.account == account, grants.c.active == 1, grants.c.how.in_(MANAGED))
    users = [_grant(row) for row in conn.execute(query)]
    if not users:
        return None
    kinds = {KINDS[grant.account.how] for grant in users}
    kind = AccountKind.CREATED if AccountKind.CREATED in kinds else AccountKind.EXISTING
    keys = sorted({key for grant in users for key in grant.keys})
    rights = sorted({right for grant in users for right in _rights(grant.action)})
    return AccountSpec(account, kind, tuple(keys), tuple(rights))


def _rights(action: Action) -> Iterable[str]:
    yield from (f"{what}:{value}" for what, value in (("kind", action.kind), ("flavour", action.flavour)) if value)
    if action.node_type:
        yield f"node_type:{action.node_type}"
    yield from (f"service:{service}" for service in action.services)


def _rest_on(conn: Connection, lease_id: str, used: Iterable[Credential]) -> None:
    rows = [
        {"lease_id": lease_id, "credential_id": credential.id, "issuer": credential.issuer.fingerprint}
        for credential in used
    ]
    if rows:
        conn.execute(insert(grant_credentials), rows)


def _rest_on_nothing(conn: Connection, lease_id: str) -> None:
    conn.execute(delete(grant_credentials).where(grant_credentials.c.lease_id == lease_id))


def _action(action: Action) -> str:
    return json.dumps(action_json(action))


def action_json(action: Action) -> dict[str, Any]:
    """An action as JSON."""
    return {
        "kind": action.kind,
        "flavour": action.flavour,
        "node_type": action.node_type,
        "image": action.image,
        "services": list(action.services),
    }


def action_of(said: Mapping[str, Any]) -> Action:
    """The inverse of `action_json`."""
    return Action(**{**said, "services": tuple(said["services"])})


def _columns(grant: Grant, now: datetime) -> dict[str, Any]:
    """The columns that change during a grant's life."""
    return {
        "private_key": None if grant.key is None else grant.key.pem.decode(),
        "world": grant.world,
        "credentials": json.dumps(grant.credentials),
        "proof": json.dumps(grant.proof),
        "proved_until": grant.proved_until,
        "problem": grant.problem,
        "until": grant.until,
        "active": int(grant.active),
        "changed": now,
    }


def _grant(row: Row[Any]) -> Grant:
    return Grant(
        lease_id=row.lease_id,
        key=None if row.private_key is None else PrivateKey.from_pem(row.private_key.encode()),
        allocation=row.allocation,
        authority=row.public_key,
        member=Peer(row.member, row.address),
        name=Name.parse(row.name),
        principal=row.principal,
        action=action_of(json.loads(row.action)),
        keys=tuple(json.loads(row.keys)),
        rule=row.rule,
        account=LocalAccount(How(row.how), row.account, None if row.certificate is None else Path(row.certificate)),
        world=row.world,
        credentials=tuple(json.loads(row.credentials)),
        proof=json.loads(row.proof),
        proved_until=row.proved_until,
        problem=row.problem,
        until=row.until,
        active=bool(row.active),
        created=row.created,
    )
