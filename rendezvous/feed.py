"""What changed: members and revocation lists, in the order of their revisions, in pages that fit a stanza.

Both kinds take their revisions from the one counter, so whoever knows a revision knows everything up to it, of both.
"""

from __future__ import annotations

from sqlalchemy import Connection

from fedkit.protocol.rendezvous import PAGE_OCTETS, Changes, Revocation
from rendezvous import revocations, store
from rendezvous.errors import UnknownRevision
from rendezvous.model import Entry
from rendezvous.store import ENTRY_OVERHEAD, ListState


def changes_page(conn: Connection, epoch: str, since: int, maximum: int) -> Changes:
    """Return what changed after the revision `since`; raise `UnknownRevision` if that cannot be told."""
    state = store.read_state(conn)
    if epoch != state.epoch or not state.floor <= since <= state.revision:
        raise UnknownRevision(
            "What changed since that revision is not known any more; read the whole list.",
            revision=state.revision,
            floor=state.floor,
        )
    return changes_since(conn, state, since, maximum)


def changes_since(conn: Connection, state: ListState, since: int, maximum: int) -> Changes:
    """Return the changes after `since` up to `state`, as many as fit, one at least."""
    changed: list[Entry | Revocation] = [
        *store.changed_entries(conn, since, state.revision, maximum + 1),
        *revocations.changed(conn, since, state.revision, maximum + 1),
    ]
    changed.sort(key=lambda entry: entry.revision)
    page = _fitting(changed[:maximum])
    complete = len(page) == len(changed)
    return Changes(
        members=[entry.to_member() for entry in page if isinstance(entry, Entry)],
        revocations=[entry for entry in page if isinstance(entry, Revocation)],
        since=since,
        revision=state.revision if complete else page[-1].revision,
        more=not complete,
        epoch=state.epoch,
    )


def _fitting(changed: list[Entry | Revocation]) -> list[Entry | Revocation]:
    size = 0
    for number, entry in enumerate(changed):
        size += len(entry.signed) + ENTRY_OVERHEAD
        if number and size > PAGE_OCTETS:
            return changed[:number]
    return changed
