"""What we know of each peer's health: when it was heard, how often it failed, when it is tried again (DESIGN §4.4).

    failure ──► next attempt in 0.5 s, 1 s, 2 s … 5 min (with jitter)      any verified message ──► tried at once

It is kept in `mesh_peers`, so a restart does not begin with hammering on the dead. Rows are written behind the event (`flush`): a
crash may lose the last change, which costs one attempt. Only peers that we addressed or whose key is pinned get a row.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, text

from fedkit.mesh import tables
from fedkit.mesh.api import Peer
from fedkit.store import Database, Tx

log = structlog.get_logger()

FIRST_DELAY = 0.5  # seconds
LONGEST_DELAY = 300.0  # seconds
HEARD_KEPT = 60.0  # seconds: `last_heard` is written this seldom, where nothing else changes
ERROR_LIMIT = 512  # characters

_SAVE = text(
    "INSERT INTO mesh_peers (fedid, address, failures, next_attempt, last_error, last_heard)"
    " VALUES (:fedid, :address, :failures, :next_attempt, :last_error, :last_heard)"
    " ON CONFLICT (fedid) DO UPDATE SET address = excluded.address, failures = excluded.failures,"
    " next_attempt = excluded.next_attempt, last_error = excluded.last_error, last_heard = excluded.last_heard"
)


@dataclass
class Health:
    """One peer's health; times are seconds since the epoch, 0 is never."""

    peer: Peer
    failures: int = 0
    next_attempt: float = 0.0
    last_error: str = ""
    last_heard: float = 0.0
    saved_heard: float = 0.0
    failed_at: float = 0.0

    def backing_off(self, now: float) -> bool:
        """Whether it failed and is not to be tried yet."""
        return self.failures > 0 and now < self.next_attempt


class Peers:
    """The health of all peers, in memory and in the database."""

    def __init__(self, db: Database, now: Callable[[], float], chance: random.Random) -> None:
        self._db = db
        self._now = now
        self._chance = chance
        self._by_fedid: dict[str, Health] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()

    def load(self, conn: Connection) -> None:
        """Read the table; done once, at start."""
        for row in conn.execute(tables.peers.select()):
            health = Health(
                Peer(row.fedid, row.address),
                row.failures,
                row.next_attempt,
                row.last_error,
                row.last_heard,
                row.last_heard,
            )
            self._by_fedid[row.fedid] = health

    def of(self, peer: Peer) -> Health:
        """The health of a peer that we address; a peer never met is healthy."""
        health = self._by_fedid.get(peer.fedid)
        if health is None:
            health = self._by_fedid[peer.fedid] = Health(peer)
        return health

    def find(self, peer: Peer) -> Health | None:
        """The health of a peer, if anything is known of it; from any thread."""
        return self._by_fedid.get(peer.fedid)

    def all(self) -> list[Health]:
        """Every peer that we know of."""
        return list(self._by_fedid.values())

    def heard(self, peer: Peer) -> bool:
        """Note a verified, fresh message of a peer; tell whether it had been failing."""
        health = self.of(peer)
        now = health.last_heard = self._now()
        revived = health.failures > 0
        if revived:
            log.info("mesh_peer_alive", fedid=peer.fedid, address=peer.address, failures=health.failures)
        if revived or health.peer != peer or now - health.saved_heard > HEARD_KEPT:
            health.peer, health.failures, health.next_attempt, health.last_error = peer, 0, 0.0, ""
            self._mark(peer.fedid)
        return revived

    def failed(self, peer: Peer, started: float, error: str) -> None:
        """Note that an attempt begun at `started` failed; attempts begun before the last failure count with it."""
        health = self.of(peer)
        if started <= health.failed_at:
            return
        now = self._now()
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(health.failures, 20)) * self._chance.uniform(0.5, 1.0)
        health.failures += 1
        health.failed_at, health.next_attempt, health.last_error = now, now + delay, error[:ERROR_LIMIT]
        log.warning(
            "mesh_peer_failed",
            fedid=peer.fedid,
            address=peer.address,
            failures=health.failures,
            again_in=round(delay, 3),
            error=health.last_error,
        )
        self._mark(peer.fedid)

    async def flush_forever(self) -> None:
        """Write changes to the table as they come."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            rows = [self._row(self._by_fedid[fedid]) for fedid in self._dirty]
            self._dirty.clear()
            try:
                await self._db.run(lambda tx, rows=rows: _save(tx, rows))  # type: ignore[misc]
            except Exception:
                log.exception("mesh_peers_not_saved")  # memory stays right; the next change writes again

    def _mark(self, fedid: str) -> None:
        self._dirty.add(fedid)
        self._wake.set()

    def _row(self, health: Health) -> dict[str, object]:
        health.saved_heard = health.last_heard
        return {
            "fedid": health.peer.fedid,
            "address": health.peer.address,
            "failures": health.failures,
            "next_attempt": health.next_attempt,
            "last_error": health.last_error,
            "last_heard": health.last_heard,
        }


def _save(tx: Tx, rows: list[dict[str, object]]) -> None:
    tx.conn.execute(_SAVE, rows)
