"""The crash campaign at a site that lends with a real cloud or hypervisor: its middleware's list always equals its member's book.

Short, since things start slowly there: one order for each victim, which is killed with -9 while the machine is made, while it runs
and while it is given back.

python -m tests.lab.lent MEMBER.TOML    at the site, while its member does not run; prints one JSON object
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, SOURCES, directory
from federation_member.config import MemberConfig
from federation_member.plugins import load_middleware
from fedkit.config import load
from tests.lab.books import LEASES
from tests.lab.order_steps import HOME, LENDER, Life, deleting, pending

VICTIMS = [f"{LENDER}/member", f"{LENDER}/lender"]  # who writes the lender's book, and who makes the machines
OTHERS = [
    f"{HOME}/member",
    f"{HOME}/xmpp",
    f"{LENDER}/xmpp",
    f"{HOME}/rendezvous",
    f"{LENDER}/tunnel",
]  # test_crashes.py has these with containers
TRY_AGAIN = 3.0  # seconds in which the member mends what a crash left


@dataclass(frozen=True)
class Lent:
    """Keys, as the lender's book and its middleware know them."""

    leases: list[str]
    owned: list[str]

    @classmethod
    def of(cls, lab: Lab, site: str) -> Lent:
        """Ask a site. Its member is stopped meanwhile, because a middleware's state may be open to one process only."""
        config = directory(lab.plan.site(site), "member") / "member.toml"
        command = ["env", f"PYTHONPATH={SOURCES}", str(PYTHON), "-m", "tests.lab.lent", str(config)]
        lab.stop(f"{site}/member")
        try:
            return cls(**json.loads(lab.run(site, command).stdout.splitlines()[-1]))
        finally:
            lab.start(f"{site}/member")


class LentLife(Life):
    """The lender's witnesses are its book and its middleware."""

    def books_become(self, site: str, *lease_ids: str) -> None:
        """Wait until a site holds exactly the machines of these leases, by all of its witnesses."""
        if site != LENDER:
            return super().books_become(site, *lease_ids)
        expected = Lent(sorted(lease_ids), sorted(lease_ids))
        deadline = time.monotonic() + self.patience
        while (found := Lent.of(self.lab, site)) != expected and time.monotonic() < deadline:
            time.sleep(TRY_AGAIN)
        assert found == expected, f"{site} holds {found}, not {expected}"
        return None

    def survives(self, victim: str) -> None:
        """Kill it at each part of an order's life and start it again: the order ends where it should, and nothing is doubled or left."""
        with pending(self) as order_id:
            self.lab.kill(victim)
        self.lab.start(victim)
        first = self.reaches(order_id, "fulfilled")
        self.lab.restart(victim)
        order = self.settles_fulfilled(order_id)[0]
        assert (order["lease_id"], order["instance"]) == (first["lease_id"], first["instance"])
        with deleting(self, order_id):
            self.lab.kill(victim)
        self.lab.start(victim)
        self.settles_deleted(order_id)


async def _look(file: Path) -> Lent:
    config = load(file, MemberConfig, "MEMBER")
    middleware = load_middleware(config.middleware.kind, config.middleware.options)
    await middleware.start(lambda key: None)
    try:
        owned = sorted(instance.key for instance in await middleware.list_owned())
    finally:
        await middleware.stop()
    with sqlite3.connect(f"file:{file.parent / 'member.db'}?mode=ro", uri=True, timeout=10) as database:
        return Lent(sorted(row[0] for row in database.execute(LEASES)), owned)


if __name__ == "__main__":
    print(json.dumps(vars(asyncio.run(_look(Path(sys.argv[1]))))))
