"""An access controller over tables in memory, at a time that the test sets."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, create_engine, event, insert
from sqlalchemy.pool import StaticPool

from federation_member.access import audit, grants, tables
from federation_member.access.audit import Entry
from federation_member.access.controller import Controller
from federation_member.access.grants import Grant
from federation_member.access.model import Action
from federation_member.access.pool import Pool
from federation_member.access.verdict import Applicant
from federation_member.access.world import Policy, World
from federation_member.errors import NotAllowed
from fedkit.identity.keys import PrivateKey
from fedkit.identity.names import Name
from fedkit.mesh.api import Peer
from fedkit.policy.compact import issue
from fedkit.policy.model import Credential, Statement
from fedkit.store import Tx

START = datetime(2026, 11, 23, 10, tzinfo=UTC)  # a Monday
SMALL = Action("compute", "small", image="debian")
SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPAwSzZ0zRoKgCs2VRyWJh4TTI9kcMaVmUPYhEvMTbm5 alice"


def key(number: int) -> PrivateKey:
    """The same key for the same number."""
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))


B, A, ALICE, BOB = (key(number) for number in (1, 2, 3, 4))
HOME = Peer(A.fedid, "fm.a.test")


def said(by: PrivateKey, text: str, until: datetime = START + timedelta(days=1)) -> Credential:
    """A credential; `A`, `B`, `ALICE` and `BOB` in the text stand for fedids."""
    names = {"ALICE": ALICE, "BOB": BOB, "A": A, "B": B}
    words = [names[word].fedid if word in names else word for word in text.replace(".", " . ").split()]
    return issue(by, Statement.parse("".join(words).replace("<-", " <- ").replace("&", " & ")), until)


def usual(
    project: str = "proj1", user: str = "alice", who: PrivateKey = ALICE, days: float = 1
) -> tuple[Credential, ...]:
    """What A shows of its user."""
    until = START + timedelta(days=days)
    name = "ALICE" if who is ALICE else "BOB"
    roles = ("user", f"project_{project}", f"user_{user}")
    return (*(said(A, f"A.{role} <- {name}", until) for role in roles), said(who, f"{name}.acting_for <- A", until))


def alice(*credentials: Credential, project: str = "proj1") -> Applicant:
    """Alice, in a project, with these credentials or the usual ones."""
    return Applicant(HOME, Name(A.fedid, project, "alice"), ALICE.fedid, credentials or usual(project))


class Book:
    """The controller of the member B, and what it wrote."""

    def __init__(self, policy: str = "", pool: Pool | None = None) -> None:
        self.now = START
        self.accounts: list[str] = []
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        event.listen(self.engine, "connect", lambda connection, _record: connection.execute("PRAGMA foreign_keys=ON"))
        tables.metadata.create_all(self.engine)
        with self.engine.begin() as conn:
            conn.execute(insert(tables.audit_head).values(id=1, sequence=0, hash=audit.NOTHING))
        self.restart(policy, pool)

    def restart(self, policy: str, pool: Pool | None = None) -> None:
        """The same tables, a new process."""
        self.world = World(B, "fm.b.test")
        self.controller = Controller(self.world, lambda: self.now, self.accounts.append)
        self.policy(policy, pool)

    def policy(self, text: str, pool: Pool | None = None) -> None:
        """Let another policy be in force."""
        self.world.set_policy(Policy.parse(text, "test", pool), self.now)

    def wait(self, **time: float) -> None:
        """Let time pass."""
        self.now += timedelta(**time)

    def grant(
        self,
        applicant: Applicant | None = None,
        action: Action = SMALL,
        hours: float = 1,
        keys: Sequence[str] = (SSH_KEY,),
    ) -> Grant:
        """Grant it, or raise as the controller does, what it records being written."""
        with self.engine.begin() as conn:
            tx = Tx(conn)
            savepoint = conn.begin_nested()
            try:
                until = self.now + timedelta(hours=hours)
                given = self.controller.grant(tx, str(uuid.uuid4()), applicant or alice(), action, keys, until)
            except NotAllowed as refusal:
                savepoint.rollback()
                refusal.record(tx)
                conn.commit()
                raise
            self._committed(tx)
            return given

    def renew(self, lease_id: str, fresh: Iterable[Credential] = (), hours: float = 1) -> Grant:
        """Renew it for so many hours from now."""
        with self.engine.begin() as conn:
            grant = self.controller.renew(Tx(conn), lease_id, self.now + timedelta(hours=hours), tuple(fresh))
        assert grant is not None
        return grant

    def release(self, lease_id: str, code: str = "", reason: str = "") -> None:
        """Release it."""
        with self.engine.begin() as conn:
            tx = Tx(conn)
            self.controller.release(tx, lease_id, code, reason)
            self._committed(tx)

    def load(self, lease_id: str) -> Grant:
        """A grant as its row says."""
        with self.engine.connect() as conn:
            grant = grants.load(conn, lease_id)
        assert grant is not None
        return grant

    def entries(self, kind: audit.Kind | None = None) -> list[Entry]:
        """The audit log, oldest first; its chain holds."""
        with self.engine.connect() as conn:
            assert audit.verify(conn).broken_at is None
            return audit.page(conn, before=None, limit=1000, kind=kind)[::-1]

    def read(self) -> Connection:
        """A connection, which the caller closes."""
        return self.engine.connect()

    def _committed(self, tx: Tx) -> None:
        for callback in tx.callbacks:
            callback()
