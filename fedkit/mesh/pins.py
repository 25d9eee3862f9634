"""The pinned keys: which full public key stands behind a fedid (DESIGN §3).

A fedid is a SHA-1 hash, good for naming and not for authenticating. So the first key that a fedid was proved with is kept, and
another one with the same fedid is refused and logged. A key is pinned when its owner's first command is accepted, or its
first answer to us verified; a stranger who is merely refused leaves no row.
"""

from __future__ import annotations

from collections import OrderedDict

import structlog
from sqlalchemy import Connection, text

from fedkit.identity.keys import PublicKey
from fedkit.mesh import tables
from fedkit.mesh.errors import KeyConflict
from fedkit.store import Tx

log = structlog.get_logger()

CACHED = 4096
_PIN = text("INSERT INTO mesh_keys (fedid, spki, pinned) VALUES (:fedid, :spki, :pinned) ON CONFLICT DO NOTHING")


class Pins:
    """What is pinned, in the database and, for those heard of lately, in memory."""

    def __init__(self) -> None:
        self._cache: OrderedDict[str, bytes] = OrderedDict()

    def known(self, key: PublicKey) -> bool | None:
        """Check against memory: True is pinned, None is not known here. Raises `KeyConflict`."""
        spki = self._cache.get(key.fedid)
        if spki is None:
            return None
        _compare(key, spki)
        return True

    def look_up(self, conn: Connection, key: PublicKey) -> bool:
        """Check against the database; raise `KeyConflict`."""
        row = conn.execute(tables.keys.select().where(tables.keys.c.fedid == key.fedid)).first()
        if row is None:
            return False
        _compare(key, row.spki)
        return True

    def pin(self, tx: Tx, key: PublicKey, at: float) -> None:
        """Pin `key`, or check it against the one that is; raise `KeyConflict`."""
        tx.conn.execute(_PIN, {"fedid": key.fedid, "spki": key.spki, "pinned": at})
        self.look_up(tx.conn, key)
        tx.after_commit(lambda: self.remember(key))

    def remember(self, key: PublicKey) -> None:
        """Keep in memory what the database holds."""
        self._cache[key.fedid] = key.spki
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)


def _compare(key: PublicKey, pinned: bytes) -> None:
    if key.spki == pinned:
        return
    log.error("mesh_key_conflict", code=KeyConflict.code, fedid=key.fedid, offered=key.fingerprint)
    raise KeyConflict(
        f"Another key with fedid {key.fedid} is pinned here; the two owners must compare fingerprints out of band.",
        fedid=key.fedid,
        offered=key.fingerprint,
    )
