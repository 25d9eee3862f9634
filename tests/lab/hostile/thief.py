"""Whoever holds a site's XMPP server: reads all that its member sends, and has its component secret, but not its key.

python -m tests.lab.hostile.thief tap CONFIG                 the real member, each `lease.create` that leaves it told on stdout
python -m tests.lab.hostile.thief rob CONFIG FILE LENDER     in the member's place, with a key of its own and what was read
                                                             (FILE); says as JSON what the LENDER (its fedid) answered
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from federation_member.config import MemberConfig
from federation_member.service import open_member
from fedkit.clock import now
from fedkit.config import load
from fedkit.errors import FedError
from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Outcome, Peer
from fedkit.mesh.link import Kind
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables
from fedkit.mesh.xmpp import XmppLink
from fedkit.policy import compact
from fedkit.policy.model import Statement
from fedkit.protocol.lending import LeaseCreate
from fedkit.service import run
from fedkit.store import Database, Tx

PATIENCE = 30.0  # seconds


def bodies(text: str) -> list[dict[str, Any]]:
    """The requests for leases in what passes, packed or not."""
    claims = json.loads(jws.decode(text.split(".")[1]))
    items = [claims, *(claims.get("body") or {}).get("items", [])]
    return [item["body"] for item in items if item.get("op") == "lease.create" and "body" in item]


def link_of(config: MemberConfig, kind: type[XmppLink] = XmppLink) -> XmppLink:
    """A link with the component's address and secret."""
    xmpp = config.xmpp
    return kind(xmpp.address, xmpp.secret(), xmpp.host, xmpp.port)


class TappedLink(XmppLink):
    """A link whose server reads along."""

    async def request(self, to: str, kind: Kind, text: str, timeout: float) -> str:
        """Tell of a request that asks for leases, then send it."""
        for body in bodies(text):
            print(json.dumps({"to": to, "text": text, "body": body}), flush=True)
        return await super().request(to, kind, text, timeout)


class Thief:
    """Asks a lender with what was read and a key of its own; `codes` are the answers."""

    def __init__(self, config: MemberConfig, db: Database, seen: dict[str, Any], lender: str) -> None:
        self.key = PrivateKey.generate()
        self.link = link_of(config)
        self.mesh = MeshNode(self.key, config.xmpp.address, db, self.link)
        self.db = db
        self.seen = seen
        self.lender = Peer(lender, str(seen["to"]))
        self.ended: asyncio.Queue[Outcome] = asyncio.Queue()
        self.mesh.on_answer("lease.create", self._answered)

    def _answered(self, tx: Tx, outcome: Outcome) -> None:
        tx.after_commit(lambda: self.ended.put_nowait(outcome))

    async def replay(self) -> str:
        """The very text, once more."""
        answer = await self.link.request(self.lender.address, "set", str(self.seen["text"]), PATIENCE)
        claims = json.loads(jws.decode(answer.split(".")[1]))
        items = [claims, *(claims.get("body") or {}).get("items", [])]
        return next(str(item["error"]["code"]) for item in items if "error" in item)

    async def ask(self, **changes: Any) -> dict[str, Any]:
        """The body that was read, changed, under the thief's own signature."""
        body = LeaseCreate.model_validate(self.seen["body"]).model_copy(update={"lease_id": str(uuid4())} | changes)
        deadline = now() + timedelta(seconds=PATIENCE)
        await self.db.run(lambda tx: self.mesh.enqueue(tx, self.lender, "lease.create", body, deadline=deadline))
        outcome = await self.ended.get()
        return {} if outcome.error is None else outcome.error.to_dict()

    def own_word(self) -> list[str]:
        """What it can say itself of the user whose credentials it has."""
        project, user = str(self.seen["body"]["name"]).split("/")[1:]
        subject, me = self.seen["body"]["principal"], self.key.fedid
        says = (f"{me}.{role} <- {subject}" for role in ("user", f"project_{project}", f"user_{user}"))
        until = now() + timedelta(hours=1)
        return [compact.issue(self.key, Statement.parse(text), until).raw.decode() for text in says]

    async def rob(self) -> dict[str, Any]:
        """Try everything."""
        async with self.mesh, asyncio.timeout(2 * PATIENCE):
            while not self.link.connected:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            name = str(self.seen["body"]["name"]).partition("/")[2]
            credentials = [*self.seen["body"]["credentials"], *self.own_word()]
            return {
                "replayed": await self.replay(),
                "in its member's name": await self.ask(),
                "in its own name": await self.ask(name=f"{self.key.fedid}/{name}", credentials=credentials),
                "as the user alone": await self.ask(name=f"//{self.seen['body']['principal']}"),
                "thief": self.key.fedid,
            }


async def rob(config: MemberConfig, seen: dict[str, Any], lender: str) -> dict[str, Any]:
    """Take the member's place."""
    with tempfile.TemporaryDirectory() as folder:
        async with Database(f"sqlite:///{folder}/thief.db") as db:
            with db.engine.begin() as conn:
                create_mesh_tables(conn)
            try:
                return await Thief(config, db, seen, lender).rob()
            except (FedError, TimeoutError) as error:
                return {"failed": repr(error)}


@asynccontextmanager
async def _tapped(config: MemberConfig) -> AsyncIterator[None]:
    async with open_member(config, link_of(config, TappedLink)):
        print("ready", flush=True)
        yield


if __name__ == "__main__":
    asked = load(Path(sys.argv[2]), MemberConfig, "MEMBER")
    if sys.argv[1] == "tap":
        sys.exit(run(lambda: _tapped(asked)))
    print(json.dumps(asyncio.run(rob(asked, json.loads(Path(sys.argv[3]).read_text()), sys.argv[4]))))
