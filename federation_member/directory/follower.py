"""Keeps the list that we know equal to the one that the Rendezvous holds.

    rendezvous.changed ─► begins where we stand? ── yes ─► apply, move on
                                    └─ no (we missed something) ─┐
    an accepted announcement names another revision ────────────┴─► ask rendezvous.changes since ours
                              rendezvous.unknown_revision ─► read all pages, of members and of revocations, then the changes since

Asking goes on until we know what the Rendezvous knows. If it fails, the next accepted announcement starts it again. While the
whole list is read no notice applies, because none begins where we stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import structlog

from federation_member.directory import store
from federation_member.directory.errors import NotOurRendezvous, UnusableList
from federation_member.directory.revocations import MAX_LISTS
from federation_member.directory.revocations import Revocations as RevocationLists
from fedkit.clock import Clock
from fedkit.errors import FedError, RemoteError
from fedkit.mesh.api import Mesh, Peer, Request
from fedkit.protocol import Empty
from fedkit.protocol.rendezvous import Changes, ChangesSince, Members, MembersPage, Revocations, RevocationsPage
from fedkit.store import Database, Tx

log = structlog.get_logger()

PAGE = 100  # entries asked for at once; fewer come where they are large


class Follower:
    """Follows the list of `rendezvous`; `on_list` is called after each commit that may have changed the members.

    `on_whole` is called in the transaction that ends a whole reading: the Rendezvous may have lost what it was told before.
    """

    def __init__(
        self,
        db: Database,
        mesh: Mesh,
        rendezvous: Peer,
        clock: Clock,
        revocations: RevocationLists,
        on_list: Callable[[], None],
        on_whole: Callable[[Tx], None],
    ) -> None:
        self._db = db
        self._lists = revocations
        self._on_whole = on_whole
        self._mesh = mesh
        self._rendezvous = rendezvous
        self._clock = clock
        self._on_list = on_list
        self._behind = asyncio.Event()
        mesh.on_command("rendezvous.changed", Changes, self._changed)

    def catch_up(self) -> None:
        """There is more to know than we do: ask for it."""
        self._behind.set()

    async def run(self) -> None:
        """Ask whenever we are behind, until cancelled."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            try:
                await self._ask_for_changes()
            except FedError as error:
                log.warning("directory_not_current", code=error.code, reason=error.message)

    def _changed(self, tx: Tx, request: Request[Changes]) -> Empty:
        if request.sender.fedid != self._rendezvous.fedid:
            raise NotOurRendezvous(f"Our Rendezvous is {self._rendezvous.address}, {self._rendezvous.fedid}.")
        if not self._apply(tx, request.body):
            tx.after_commit(self.catch_up)
        return Empty()

    def _apply(self, tx: Tx, changes: Changes) -> bool:
        """Write changes down unless they begin behind what we know; tell whether they did not."""
        standing = store.lock_standing(tx)
        if changes.epoch != standing.epoch or changes.since > standing.revision:
            return False
        now = self._clock()
        store.apply(tx, changes.members, now, whole=False)
        self._lists.told(tx, changes.revocations)
        if changes.revision >= standing.revision:
            store.move(tx, changes.epoch, changes.revision, None if changes.more else now)
        tx.after_commit(self._on_list)
        return True

    async def _ask_for_changes(self) -> None:
        read_whole = False
        more = True
        while more:
            standing = await self._db.read(store.read_standing)
            if not standing.epoch:
                await self._read_whole_list()
                read_whole = True
                continue
            try:
                more = await self._ask_for_page(standing)
            except RemoteError as refusal:
                if refusal.code != "rendezvous.unknown_revision" or read_whole:
                    raise
                await self._db.run(store.forget_revision)

    async def _ask_for_page(self, standing: store.Standing) -> bool:
        question = ChangesSince(revision=standing.revision, epoch=standing.epoch, max=PAGE)
        changes = await self._mesh.ask(self._rendezvous, "rendezvous.changes", question, Changes)
        if changes.more and changes.revision <= standing.revision:
            raise UnusableList("The Rendezvous says that there is more, but its changes do not advance.")
        if not await self._db.run(lambda tx: self._apply(tx, changes)):
            raise UnusableList("The Rendezvous answered with changes since another revision than it was asked.")
        return changes.more

    async def _read_whole_list(self) -> None:
        """Walk the pages in order of fedid; who comes or goes meanwhile is in the changes since the first page."""
        page = first = await self._read_page("", 0)
        listed = {member.fedid for member in page.members}
        while not page.complete:
            page = await self._read_page(max(listed), len(listed))
            listed |= {member.fedid for member in page.members}
        await self._read_revocations()

        def finish(tx: Tx) -> None:
            store.finish_whole(tx, listed, first.epoch, first.revision, self._clock())
            self._on_whole(tx)

        await self._db.run(finish)
        self._on_list()

    async def _read_revocations(self) -> None:
        after, already, complete = "", 0, False
        while not complete:
            question = RevocationsPage(after=after, max=PAGE)
            page = await self._mesh.ask(self._rendezvous, "rendezvous.revocations", question, Revocations)
            already += len(page.revocations)
            _check_order([entry.issuer for entry in page.revocations], after, already, MAX_LISTS, page.complete)
            await self._db.run(partial(self._lists.told, entries=page.revocations))
            after = page.revocations[-1].issuer if page.revocations else after
            complete = page.complete

    async def _read_page(self, after: str, already: int) -> Members:
        question = MembersPage(after=after, max=PAGE)
        page = await self._mesh.ask(self._rendezvous, "rendezvous.members", question, Members)
        _check_page(page, after, already)
        await self._db.run(lambda tx: store.apply(tx, page.members, self._clock(), whole=True))
        return page


def _check_page(page: Members, after: str, already: int) -> None:
    fedids = [member.fedid for member in page.members]
    _check_order(fedids, after, already + len(fedids), store.MAX_KNOWN, page.complete)


def _check_order(fedids: list[str], after: str, already: int, most: int, complete: bool) -> None:
    if fedids != sorted(set(fedids)) or (fedids and fedids[0] <= after):
        raise UnusableList("The Rendezvous's pages are not in order.")
    if not fedids and not complete:
        raise UnusableList("The Rendezvous says that there is more, but its pages are empty.")
    if already > most:
        raise UnusableList(f"The Rendezvous lists more than {most}.")
