"""What users ask of attached desktops: attach one, have it stay, look, detach it.

Whoever may operate an experiment may attach to it; a party's people to what is their own (attaching.py). The answer to a desktop has no
secret: its address, names and routes, and, once the portal that waits for it is there, where that is and its public host key.
"""

from __future__ import annotations

from asyncio import to_thread
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

from sqlalchemy import Connection

from federation_member.accounts import store as accounts
from federation_member.experiments import attachments, store
from federation_member.experiments.attaching import Attachment, NewAttachment, Scene, Told, attach
from federation_member.experiments.errors import (
    NotAttachable,
    TooManyAttachments,
    UnknownAttachment,
    UnusableAttachment,
)
from federation_member.experiments.model import ALIVE, Experiment, Segment
from federation_member.experiments.outlook import SETTLED
from federation_member.experiments.relays import Relays
from federation_member.experiments.serving import secret_of, serve
from federation_member.experiments.views import View, sides_of, topology_of
from federation_member.orders.engine import Engine
from federation_member.orders.model import User
from fedkit.clock import Clock
from fedkit.kits.installed import kit_named
from fedkit.protocol.segments import FEDERATION_KIT, NodeStatus, PortalInfo
from fedkit.store import Database, Tx

AT_ONCE = 2  # attachments of one user that are planned, which takes a processor for a while
ATTEMPTS = 5  # at an experiment that somebody else changes at the same time

May = Callable[[Connection, User, str, Sequence[str]], tuple[Experiment, View]]


class Standing(StrEnum):
    """How far an attachment is."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    LEAVING = "leaving"


@dataclass(frozen=True)
class Attached:
    """An attachment, what its desktop is told, when it is over, and, once it runs, the portal that waits for it."""

    attachment: Attachment
    told: Told
    expires: datetime
    portal: PortalInfo | None

    @property
    def state(self) -> Standing:
        """How far it is; `ready`: the desktop may connect."""
        if self.attachment.leaving:
            return Standing.LEAVING
        if self.attachment.code:
            return Standing.FAILED
        return Standing.STARTING if self.portal is None else Standing.READY


class Desktops:
    """Those of all experiments; `may` finds an experiment and what a user may know of it, `wake` has one looked at."""

    def __init__(
        self, db: Database, engine: Engine, relays: Relays, clock: Clock, may: May, wake: Callable[[str], None]
    ) -> None:
        self._db = db
        self._engine = engine
        self._relays = relays
        self._clock = clock
        self._may = may
        self._wake = wake
        self._planned: Counter[str] = Counter()  # just now, by user

    async def attach(self, user: User, wanted: str, new: NewAttachment, shown: Sequence[str] = ()) -> Attached:
        """Attach a desktop, or have it stay attached; one that failed stays so.

        Raises `UnusableAttachment`, `NotAttachable`, `TooManyAttachments` and what `Experiments.get` does.
        """
        for _ in range(ATTEMPTS):
            kept = await self._db.run(lambda tx: self._renew(tx, user, wanted, new, shown))
            if kept is not None:
                return kept
            with self._one_of_few(user):
                scene, secret = await self._db.read(lambda conn: self._scene(conn, user, wanted, shown))
                one, told = await to_thread(_plan, scene, secret, new, self._clock())
            made = await self._db.run(partial(self._add, scene=scene, one=one, told=told))
            if made is not None:
                return made
        raise NotAttachable("The experiment is being changed all the time; ask again.")

    @contextmanager
    def _one_of_few(self, user: User) -> Iterator[None]:
        if self._planned[user.name] >= AT_ONCE:
            raise TooManyAttachments(f"{AT_ONCE} attachments of yours are being planned; ask again in a moment.")
        self._planned[user.name] += 1
        try:
            yield
        finally:
            self._planned[user.name] -= 1
            if not self._planned[user.name]:
                del self._planned[user.name]

    async def get(self, user: User, wanted: str, attachment: str, shown: Sequence[str] = ()) -> Attached:
        """One by its id; raises `UnknownAttachment` and what `Experiments.get` does."""

        def read(conn: Connection) -> Attached:
            experiment, view = self._may(conn, user, wanted, shown)
            one = next((one for one in _seen(conn, experiment, view) if one.id == attachment), None)
            found = None if one is None else _shown(conn, experiment, one)
            if found is None:
                raise UnknownAttachment("Nothing is attached by that id; it was detached, or its time was over.")
            return found

        return await self._db.read(read)

    async def page(self, user: User, wanted: str, shown: Sequence[str] = ()) -> list[Attached]:
        """All that a user may know of; raises what `Experiments.get` does."""

        def read(conn: Connection) -> list[Attached]:
            experiment, view = self._may(conn, user, wanted, shown)
            found = (_shown(conn, experiment, one) for one in _seen(conn, experiment, view))
            return [one for one in found if one is not None]

        return await self._db.read(read)

    async def detach(self, user: User, wanted: str, attachment: str, shown: Sequence[str] = ()) -> None:
        """Begin to take one out; one that is not there is gone already. Raises what `Experiments.get` does."""

        def write(tx: Tx) -> None:
            experiment, view = self._may(tx.conn, user, wanted, shown)
            store.load(tx.conn, experiment.id, lock=True)
            for one in _seen(tx.conn, experiment, view):
                if one.id == attachment:
                    attachments.leave(tx, experiment.id, one)
            tx.after_commit(lambda: self._wake(experiment.id))

        await self._db.run(write)

    def _renew(self, tx: Tx, user: User, wanted: str, new: NewAttachment, shown: Sequence[str]) -> Attached | None:
        """One that is there already."""
        experiment, view = self._may(tx.conn, user, wanted, shown)
        store.load(tx.conn, experiment.id, lock=True)
        there = next((one for one in attachments.listed(tx.conn, experiment.id) if one.id == new.id), None)
        if there is None or experiment.state not in ALIVE:
            return None
        if (there.user, there.public_key) != (user.name, new.public_key) or there not in _seen(
            tx.conn, experiment, view
        ):
            raise UnusableAttachment("Another desktop has that id; choose one at random.")
        attachments.renew(tx, experiment.id, there, self._clock())
        return _shown(tx.conn, experiment, there)

    def _scene(self, conn: Connection, user: User, wanted: str, shown: Sequence[str]) -> tuple[Scene, str]:
        experiment, view = self._may(conn, user, wanted, shown)
        _check(experiment)
        attachments.check_room(conn, experiment.id, user.name)
        segments = store.whole(conn, experiment).segments
        there = attachments.listed(conn, experiment.id)
        members, relay = self._engine.members(), self._relays.possible
        account = accounts.load_account(conn, user.name)
        who = (user.name, None if account is None else account.principal)
        scene = Scene(experiment, topology_of(experiment), segments, there, view, members, relay, *who)
        return scene, secret_of(store.key_of(conn, experiment.id))

    def _add(self, tx: Tx, scene: Scene, one: Attachment, told: Told) -> Attached | None:
        """Write it, unless what it was planned on is another by now."""
        experiment = store.load(tx.conn, scene.experiment.id, lock=True)
        assert experiment is not None
        _check(experiment)
        segments = store.whole(tx.conn, experiment, lock=True).segments
        there = attachments.listed(tx.conn, experiment.id)
        if _ground(experiment, segments, there) != _ground(scene.experiment, scene.segments, scene.attached):
            return None
        now = self._clock()
        attachments.add(tx, experiment.id, one, told, now)
        store.note(tx, experiment, now, "", f"{one.user} attaches {one.name} to {one.substrate}", (one.testbed,))
        tx.after_commit(lambda: self._wake(experiment.id))
        return _shown(tx.conn, experiment, one)


def _plan(scene: Scene, secret: str, new: NewAttachment, now: datetime) -> tuple[Attachment, Told]:
    experiment = scene.experiment
    arranged = serve(scene.topology, kit_named(experiment.kit), experiment.owner.name, [], secret)
    return attach(replace(scene, topology=arranged.topology), new, now)


def _check(experiment: Experiment) -> None:
    if experiment.kit != FEDERATION_KIT:
        raise NotAttachable(f"Its pieces are joined by the kit {experiment.kit}, which desktops do not speak.")
    if experiment.extension is not None:
        raise NotAttachable("The experiment is being extended; ask again when that is over.")
    if experiment.state not in SETTLED:
        raise NotAttachable(f"The experiment is {experiment.state.value}; desktops are attached to active ones.")


def _ground(experiment: Experiment, segments: Sequence[Segment], there: Sequence[Attachment]) -> Any:
    """What a plan rests on."""
    pieces = [(segment.number, None if segment.order is None else segment.order.spec) for segment in segments]
    return experiment.description, pieces, [(one.id, one.code) for one in there]


def _seen(conn: Connection, experiment: Experiment, view: View) -> list[Attachment]:
    """Those that one may know of: a party's people those at their testbeds."""
    if experiment.state not in ALIVE:
        return []
    sides, there = sides_of(experiment.parties), attachments.listed(conn, experiment.id)
    return [one for one in there if view.parties is None or sides.of(one.testbed) in view.parties]


def _shown(conn: Connection, experiment: Experiment, attachment: Attachment) -> Attached | None:
    """One with all that there is of it; None if it has just gone."""
    portal = attachments.portal_of(attachment, store.whole(conn, experiment).segments)
    is_ready = portal is not None and portal.status is NodeStatus.RUNNING
    known = is_ready and portal is not None and None not in (portal.host, portal.port, portal.host_key)
    told = attachments.told(conn, experiment.id, attachment)
    return None if told is None else Attached(attachment, *told, portal if known else None)
