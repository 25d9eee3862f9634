"""Relays: ports of our own tunnel server for portals whose lenders have none, because nothing can be opened towards those sites.

    lender: `relayed`, its portal's public key ──► tunnel.grant (same transaction) ──► our server: that key, one port
    our server's description ──► `Connection.relay`, told to that lender, whose portal then dials the server
    granted, tunnel.changed ──► where the active end finds it, and whether it is there
    nobody wants it any more, the experiment ends ── tunnel.revoke (same transaction)

The key is the one that the portal has anyway, so no secret travels; the portals' own ssh runs inside, so the server sees ciphertext only.
What is wanted follows from the segments, so `follow` may run at any time, twice, or after a crash. A right lasts `LIFE` and is renewed
by half of it while it is wanted: if we are never heard of again, it ends by itself. Its id is random, so that nobody who lends or
borrows machines here can choose the same for a lease of theirs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Connection

from federation_member.experiments import relay_book
from federation_member.experiments.joining import RELAYED, info_of, spec_of
from federation_member.experiments.model import RelayPort, Segment
from federation_member.experiments.ordering import is_held, oldest
from federation_member.orders.tunnels import Tunnels
from fedkit.clock import Clock
from fedkit.errors import RemoteError
from fedkit.mesh.api import Peer
from fedkit.mesh.errors import MeshError
from fedkit.protocol.tunnel import Grant, Granted
from fedkit.store import Database, Tx

log = structlog.get_logger()

LIFE = timedelta(minutes=30)  # longer than a lender keeps what a silent borrower has
RETRY = timedelta(minutes=1)  # until a refused one is asked for again
SOON = timedelta(seconds=5)  # until a server that did not describe itself is asked again
REASON_LENGTH = 512


class Relays:
    """Has our tunnel server keep them; `wake(experiment_id)` is called when there is news of one."""

    def __init__(self, db: Database, tunnels: Tunnels, clock: Clock, wake: Callable[[str], None]) -> None:
        self._db = db
        self._tunnels = tunnels
        self._clock = clock
        self._wake = wake
        tunnels.others = self

    @property
    def possible(self) -> bool:
        """Whether we have a tunnel server."""
        return self._tunnels.server is not None

    def follow(self, tx: Tx, experiment_id: str, segments: Sequence[Segment]) -> datetime | None:
        """Have those kept that these segments need, and no others; return when to look again."""
        server, wanted = self._tunnels.server, _ends(segments)
        due: list[datetime | None] = []
        there = set()
        for relay in relay_book.of_experiment(tx.conn, experiment_id):
            end = (relay.testbed, relay.connector)
            if server is None or relay.server.fedid != server.fedid or wanted.get(end) != relay.public_key:
                self._tunnels.revoke_at(tx, relay.server, relay.id)
                relay_book.remove(tx, relay.id)
                continue
            there.add(end)
            due += self._keep(tx, relay)
        if server is not None:
            due += [self._begin(tx, experiment_id, server, end, wanted[end]) for end in wanted if end not in there]
        return oldest(due)

    def _begin(self, tx: Tx, experiment_id: str, server: Peer, end: tuple[str, str], public_key: str) -> datetime:
        testbed, connector = end
        expires = self._clock() + LIFE
        relay = RelayPort(str(uuid.uuid4()), experiment_id, testbed, connector, public_key, server, expires)
        relay_book.add(tx, relay)
        self._grant(tx, relay, expires)
        return expires - LIFE / 2

    def _keep(self, tx: Tx, relay: RelayPort) -> list[datetime | None]:
        """Ask for it again if that is due; when it will be."""
        now = self._clock()
        is_retried = relay.retry is not None and relay.retry <= now
        if not is_retried and relay.expires - LIFE / 2 > now:
            return [relay.retry, relay.expires - LIFE / 2]
        # A server that has forgotten it meanwhile makes it anew, and counts what it says of it from the beginning.
        relay_book.change(tx, relay.id, expires=now + LIFE, retry=None, revision=0)
        self._grant(tx, relay, now + LIFE)
        return [now + LIFE / 2]

    def _grant(self, tx: Tx, relay: RelayPort, expires: datetime) -> None:
        body = Grant(lease_id=relay.id, public_key=relay.public_key, ports=1, expires=expires, reserve=[RELAYED])
        self._tunnels.grant_at(tx, relay.server, body)

    # What the server says

    def granted(self, tx: Tx, granted: Granted) -> None:
        """Its port, and whether it is held."""
        relay = relay_book.load(tx.conn, granted.lease_id, lock=True)
        if relay is None or granted.revision < relay.revision:
            return
        port = next((one for one in granted.tunnels if one.name == RELAYED), None)
        told = None if port is None else port.model_dump_json()
        relay_book.change(tx, relay.id, revision=granted.revision, port=told, reason="", retry=None)
        tx.after_commit(lambda: self._wake(relay.experiment_id))

    def refused(self, tx: Tx, lease_id: str, error: RemoteError) -> None:
        """It is asked for again; what it was refused with is what its portals are missed for."""
        relay = relay_book.load(tx.conn, lease_id, lock=True)
        if relay is None:
            return
        log.warning("relay_refused", relay=relay.id, code=error.code, reason=error.message)
        reason = f"{error.message} ({error.code})"[:REASON_LENGTH]
        relay_book.change(tx, relay.id, reason=reason, retry=self._clock() + RETRY)
        tx.after_commit(lambda: self._wake(relay.experiment_id))

    async def describe(self, experiment_id: str) -> datetime | None:
        """Ask the server what portals must know of it, if that is not known of all; return when to look at the experiment again."""
        if not self.possible:
            return None
        unknown = await self._db.read(lambda conn: _undescribed(conn, experiment_id))
        if not unknown:
            return None
        try:
            described = await self._tunnels.describe(unknown[0].server)
        except (MeshError, RemoteError) as error:
            log.warning("relay_not_described", experiment=experiment_id, code=error.code, reason=error.message)
            return self._clock() + SOON
        text = described.model_dump_json()

        def write(tx: Tx) -> None:
            for relay in unknown:
                relay_book.change(tx, relay.id, described=text)

        await self._db.run(write)
        return self._clock()


def _ends(segments: Sequence[Segment]) -> dict[tuple[str, str], str]:
    """The portals that need one, with their keys."""
    found = {}
    for segment in segments:
        order = segment.order
        if order is None or not is_held(order) or not info_of(order).relayed:
            continue
        offered = {one.name for one in spec_of(order).connectors if one.relay and not one.active}
        for portal in info_of(order).portals:
            if portal.connector in offered and portal.public_key is not None:
                found[segment.testbed, portal.connector] = portal.public_key
    return found


def _undescribed(conn: Connection, experiment_id: str) -> list[RelayPort]:
    return [relay for relay in relay_book.of_experiment(conn, experiment_id) if relay.described is None]
