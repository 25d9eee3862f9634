"""Asks a lender's book as any member could, with whatever names and credentials a test makes up."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer, RecordedRefusal
from fedkit.policy.compact import issue
from fedkit.policy.model import Credential, Statement
from fedkit.protocol.lending import ComputeSpec, LeaseCreate, LeaseRelease, LeaseSync, LeaseView
from fedkit.store import Tx
from tests.support.federation import Member


@dataclass
class Somebody:
    """A user U of a testbed A, and what is said of them; `now` is the present."""

    now: datetime
    testbed: PrivateKey = field(default_factory=PrivateKey.generate)
    user: PrivateKey = field(default_factory=PrivateKey.generate)
    name: str = "proj1/alice"

    def says(self, key: PrivateKey, text: str, hours: float = 24) -> Credential:
        """A credential; `{A}` and `{U}` in the text stand for the fedids."""
        statement = Statement.parse(text.format(A=self.testbed.fedid, U=self.user.fedid))
        return issue(key, statement, self.now + timedelta(hours=hours))

    def usual(self) -> list[Credential]:
        """What a home member shows of its user."""
        project, user = self.name.split("/")
        roles = ("user", f"project_{project}", f"user_{user}")
        return [self.says(self.testbed, f"{{A}}.{role} <- {{U}}") for role in roles] + [self.acting()]

    def acting(self) -> Credential:
        """The user lets the testbed act."""
        return self.says(self.user, "{U}.acting_for <- {A}")

    def request(self, credentials: Iterable[Credential] | None = None, **spec: object) -> LeaseCreate:
        """A request for a machine."""
        sent = self.usual() if credentials is None else credentials
        return LeaseCreate(
            lease_id=str(uuid.uuid4()),
            name=f"{self.testbed.fedid}/{self.name}",
            principal=self.user.fedid,
            credentials=[credential.raw.decode() for credential in sent],
            spec=ComputeSpec(image="debian", **spec),  # type: ignore[arg-type]
            seconds=600,
        )


async def ask(lender: Member, sender: Peer, body: LeaseCreate) -> LeaseView | FedError:
    """The lender's answer to a request that bears the sender's signature."""

    def create(tx: Tx) -> LeaseView | FedError:
        try:
            return lender.orders.engine.lending.create(tx, sender, body)
        except RecordedRefusal as refusal:
            refusal.record(tx)
            return refusal
        except FedError as refusal:
            return refusal

    return await lender.db.run(create)


async def sync(
    lender: Member, sender: Peer, lease_id: str, fresh: Iterable[Credential] = (), seconds: int = 600
) -> LeaseView:
    """Renew a lease, as its borrower does."""
    body = LeaseSync(lease_ids=[lease_id], seconds=seconds, credentials=[one.raw.decode() for one in fresh])
    return (await lender.db.run(lambda tx: lender.orders.engine.lending.sync(tx, sender, body))).leases[0]


async def give_back(lender: Member, sender: Peer, lease_id: str) -> None:
    """Give a lease back, and wait until nothing is left of it."""
    body = LeaseRelease(lease_id=lease_id)
    await lender.db.run(lambda tx: lender.orders.engine.lending.release(tx, sender, body))

    async def gone() -> bool:
        return lease_id not in await lender.book()

    await lender.federation.settle(gone)
