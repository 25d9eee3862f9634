"""What users ask of experiments; the web's only way in. `running` looks after them.

    create ─► one transaction: the experiment, and an order for each of its pieces ─► the reconciler
    an order changed ─► its event, read after the last one seen ─► the experiments concerned ─► the reconciler

Somebody else's experiment is as unknown as one that never was, unless a credential of its own lets one operate it: one that is shown
with the request, or that its user keeps here.
"""

from __future__ import annotations

import asyncio
import uuid
from asyncio import to_thread
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from federation_member.accounts import store as accounts
from federation_member.credentials import wallet
from federation_member.errors import NotYourProject
from federation_member.experiments import attachments, capability, granting, store
from federation_member.experiments.desktops import Desktops
from federation_member.experiments.errors import (
    HasEnded,
    NameTaken,
    NotExtensible,
    NotGranted,
    UnknownExperiment,
    UnusableParty,
)
from federation_member.experiments.extending import LargerDescription, grow
from federation_member.experiments.granting import Granted
from federation_member.experiments.keys import ExperimentKey
from federation_member.experiments.model import (
    ALIVE,
    FINAL,
    Event,
    Experiment,
    Grant,
    NewExperiment,
    Planned,
    State,
    Whole,
)
from federation_member.experiments.operating import operate
from federation_member.experiments.ordering import oldest, open_order
from federation_member.experiments.planning import described, serve_and_plan
from federation_member.experiments.preview import Preview, preview
from federation_member.experiments.reconciler import Reconciler
from federation_member.experiments.relays import Relays
from federation_member.experiments.serving import secret_of
from federation_member.experiments.views import View
from federation_member.orders.engine import Engine
from federation_member.orders.identities import Identities
from federation_member.orders.model import User
from federation_member.orders.store import last_event
from federation_member.orders.workqueue import WorkQueue
from fedkit.clock import Clock
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.protocol.segments import Operated, Operation
from fedkit.store import Database, Tx
from fedkit.topology import topdl
from fedkit.topology.model import Topology
from fedkit.topology.services import write_service

NEWS = "news"  # key of the queue: orders have changed
WORKERS = 2
LIFE = timedelta(days=30)  # of the creator's own credential, where the experiment has no end


class Experiments:
    """All experiments of one member's users."""

    def __init__(self, db: Database, engine: Engine, identities: Identities, clock: Clock) -> None:
        self._db = db
        self._engine = engine
        self._identities = identities
        self._clock = clock
        self.queue = WorkQueue("experiments", self._look, clock, WORKERS)
        self._relays = Relays(db, engine.tunnels, clock, self.queue.wake)
        self._reconciler = Reconciler(engine, self._relays, clock)
        self.desktops = Desktops(db, engine, self._relays, clock, self._may, self.queue.wake)
        self._listeners: list[Callable[[str], None]] = []
        self._seen = 0  # the last order event that was looked at

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look after all experiments while the context is open; it begins with all that have not ended."""
        self._seen = await self._db.read(last_event)
        for experiment_id in await self._db.read(store.unfinished):
            self.queue.wake(experiment_id)
        stop = self._engine.listen(lambda: self.queue.wake(NEWS))
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.queue.run())
                try:
                    yield
                finally:
                    task.cancel()
        finally:
            stop()

    async def _look(self, key: str) -> datetime | None:
        if key != NEWS:
            due = await self._db.run(lambda tx: self._reconciler.step(tx, key))
            due = oldest([due, await self._relays.describe(key)])
            for callback in list(self._listeners):
                callback(key)
            return due
        touched, self._seen = await self._db.read(lambda conn: store.news(conn, self._seen))
        for experiment_id in touched:
            self.queue.wake(experiment_id)
        newest = await self._db.read(last_event)
        return self._clock() if newest > self._seen else None

    # Creation

    async def create(self, user: User, new: NewExperiment) -> tuple[Whole, Grant, ExperimentKey]:
        """Make an experiment and ask for its pieces; returns it, its owner's credential and its keys.

        Raises `BadDescription` and what else of `fedkit.topology` tells that it cannot be split, `UnusableMapping`, `NameTaken`,
        `NotYourProject`, `NothingToRun` or `TooLarge`.
        """
        members = self._engine.members()
        topology = (await described(new, members)).topology
        key = ExperimentKey.generate()
        secret = secret_of(key.identity)
        pieces = await to_thread(serve_and_plan, new, topology, members, user.name, secret, relay=self._relays.possible)
        planned = [key.sealing(piece) for piece in pieces]
        owner = User(user.project if new.project is None else new.project, user.name)
        now = self._clock()
        experiment = Experiment(
            id=str(uuid.uuid4()),
            name=new.name,
            owner=owner,
            state=State.ALLOCATING,
            code="",
            reason="asks for everything that it needs",
            fedid=key.fedid,
            description=topdl.write(topology).decode(),
            routing=topology.routing,
            services=tuple(map(write_service, topology.services)),
            portals=new.portals,
            created=now,
            changed=now,
            valid_until=new.valid_until,
            warned=False,
            events=1,
            parties=new.parties,
            about=(),
            kit=new.kit,
        )
        whole, principal = await self._db.run(lambda tx: self._create(tx, experiment, key.identity, planned))
        return whole, capability.issue(key.identity, principal, new.valid_until or now + LIFE), key

    def _create(self, tx: Tx, experiment: Experiment, key: PrivateKey, planned: Sequence[Planned]) -> tuple[Whole, str]:
        owner = experiment.owner
        names = self._identities.names(tx.conn, owner)
        # Two requests of one user come after one another, so that their names are told apart.
        tx.conn.execute(
            select(accounts.accounts.c.name).where(accounts.accounts.c.name == owner.name).with_for_update()
        )
        account = accounts.load_account(tx.conn, owner.name)
        assert account is not None
        if store.name_is_taken(tx.conn, owner.name, experiment.name):
            raise NameTaken(f"You have an experiment {experiment.name} already; terminate it, or choose another name.")
        projects = [name.project for name in names]
        if owner.project not in projects and projects != [""]:
            raise NotYourProject(f"You are not in project {owner.project}; yours: {', '.join(projects)}.")
        orders = sorted(str(uuid.uuid4()) for _ in planned)
        store.add(tx, experiment, key, list(zip(planned, orders, strict=True)))
        for piece, order_id in zip(planned, orders, strict=True):
            open_order(
                tx, self._engine, owner, piece, experiment_id=experiment.id, order_id=order_id, now=experiment.created
            )
        tx.after_commit(lambda: self.queue.wake(experiment.id))
        return store.whole(tx.conn, experiment), account.principal

    # Looking

    async def preview(self, new: NewExperiment) -> Preview:
        """What would come of it; nothing is asked of anybody."""
        return await preview(new, self._engine.members(), relay=self._relays.possible)

    async def page(self, user: User) -> list[Experiment]:
        """A user's own, newest first."""
        return await self._db.read(lambda conn: store.of_owner(conn, user.name))

    async def get(self, user: User, wanted: str, shown: Sequence[str] = ()) -> Whole:
        """One by its id or its owner's name for it; `shown` are credentials. Raises `UnknownExperiment` or `NotGranted`."""
        whole, view = await self._seen_by(user, wanted, shown)
        return whole if view.is_all else await to_thread(view.whole, whole)

    async def topology(self, user: User, wanted: str, shown: Sequence[str] = (), *, services: bool = False) -> Topology:
        """Its description as it was split, addresses and testbeds included, or with what its services brought; raises as `get` does."""
        experiment, view = await self._db.read(lambda conn: self._may(conn, user, wanted, shown))
        return await to_thread(view.topology, experiment, services=services)

    async def log(self, user: User, wanted: str, shown: Sequence[str] = (), after: int = 0) -> list[Event]:
        """What happened to it, oldest first, after the event of that number; raises as `get` does."""

        def read(conn: Connection) -> list[Event]:
            experiment, view = self._may(conn, user, wanted, shown)
            events = view.events(experiment, store.history(conn, experiment.id, after if view.is_all else 0))
            return [event for event in events if event.number > after]

        return await self._db.read(read)

    async def _seen_by(self, user: User, wanted: str, shown: Sequence[str]) -> tuple[Whole, View]:
        """All of one, and what of it may be shown."""

        def read(conn: Connection) -> tuple[Whole, View]:
            experiment, view = self._may(conn, user, wanted, shown)
            return store.whole(conn, experiment), view

        return await self._db.read(read)

    async def own(self, user: User, wanted: Sequence[str]) -> list[Experiment]:
        """Those of these ids that are a user's own."""
        return await self._db.read(lambda conn: store.of_owner(conn, user.name, wanted))

    def listen(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back with the id of whatever experiment may have changed, until the returned function is called."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    async def credentials(self, user: User, wanted: str, shown: Sequence[str] = ()) -> tuple[Whole, Grant | None]:
        """The pieces that one may operate, with what their lenders sealed, and, for its owner, what lets them operate all of it, as long
        as there is anything to operate.

        Raises as `get` does.
        """
        whole, view = await self._seen_by(user, wanted, shown)
        whole = view.operated(whole)
        experiment = whole.experiment
        if experiment.owner.name != user.name or experiment.state in FINAL:
            return whole, None

        def issue(conn: Connection) -> Grant:
            account = accounts.load_account(conn, user.name)
            assert account is not None
            until = experiment.valid_until or self._clock() + LIFE
            return capability.issue(store.key_of(conn, experiment.id), account.principal, until)

        return whole, await self._db.read(issue)

    # Changing

    async def operate(
        self,
        user: User,
        wanted: str,
        operation: Operation,
        nodes: Sequence[str],
        shown: Sequence[str] = (),
        command: str = "",
    ) -> Operated:
        """Stop, start or reboot nodes, run a command in them, or read their consoles.

        What cannot be done is told of each node. Raises as `get` does.
        """
        whole, view = await self._seen_by(user, wanted, shown)
        return await operate(self._db, self._engine, view.operated(whole), operation, nodes, command)

    async def extend(self, user: User, wanted: str, larger: LargerDescription, shown: Sequence[str] = ()) -> Whole:
        """Begin to add to an experiment what a larger description of the whole has more; everything or nothing is added.

        Raises `NotContained`, `NotExtensible`, what `get` does, and what of a description `create` does.
        """
        before = await self._db.read(lambda conn: store.whole(conn, self._may_all(conn, user, wanted, shown)))
        _check_extensible(before.experiment)
        secret = secret_of(await self._db.read(lambda conn: store.key_of(conn, before.experiment.id)))
        attached = await self._db.read(lambda conn: attachments.listed(conn, before.experiment.id))
        members, relay = self._engine.members(), self._relays.possible
        found = await grow(before, larger, members, self._clock(), secret, relay=relay, attached=attached)

        def write(tx: Tx) -> Whole:
            experiment = self._alive(tx, before.experiment)
            _check_extensible(experiment, before.experiment.description)
            _check_same(before, store.whole(tx.conn, experiment))
            number = 1 + max(segment.number for segment in before.segments)
            numbers = tuple(range(number, number + len(found.added)))
            extension = found.extension.model_copy(update={"added": numbers})
            now = self._clock()
            for number, piece in zip(numbers, found.added, strict=True):
                order_id = str(uuid.uuid4())
                store.add_segment(tx, experiment.id, number, piece, order_id)
                ids = {"experiment_id": experiment.id, "order_id": order_id}
                open_order(tx, self._engine, experiment.owner, piece, now=now, **ids)
            experiment = store.change(tx, experiment, now, extension=extension)
            self._note(tx, experiment, f"{user.name} extends it; its lenders are asked")
            return store.whole(tx.conn, experiment)

        return await self._db.run(write)

    async def grant(
        self, user: User, wanted: str, principal: str, expires: datetime, party: str | None = None
    ) -> Grant:
        """Let a principal operate an experiment of the user's own until a time, or what is one party's of it.

        Raises `UnknownExperiment`, `UnusableParty`, `NotGranted` or `HasEnded`.
        """

        def write(tx: Tx) -> Grant:
            experiment = self._alive(tx, self._own(tx.conn, user, wanted))
            if party is not None and party not in experiment.parties:
                has = ", ".join(experiment.parties) or "none"
                raise UnusableParty(f"The experiment has no party {party}; it has {has}.")
            key, now = store.key_of(tx.conn, experiment.id), self._clock()
            grant = granting.add(tx, experiment.id, key, principal, party, expires, now)
            what = "it" if party is None else f"what is {party}'s"
            self._note(tx, experiment, f"{principal} may operate {what} until {expires:%Y-%m-%d %H:%M:%S} UTC")
            return grant

        return await self._db.run(write)

    async def grants(self, user: User, wanted: str) -> list[Granted]:
        """What was granted of an experiment of the user's own and has not expired; raises `UnknownExperiment`."""
        return await self._db.read(lambda conn: granting.listed(conn, self._own(conn, user, wanted).id, self._clock()))

    async def revoke(self, user: User, wanted: str, principal: str) -> list[Granted]:
        """Let a principal into an experiment of the user's own no more; repeating is harmless. Raises `UnknownExperiment`."""

        def write(tx: Tx) -> list[Granted]:
            experiment = self._locked(tx, self._own(tx.conn, user, wanted))
            granting.revoke(tx, experiment.id, principal, self._clock())
            attachments.leave_all_of(tx, experiment.id, principal)
            self._note(tx, experiment, f"{principal} may operate it no more")
            return granting.listed(tx.conn, experiment.id, self._clock())

        return await self._db.run(write)

    def _note(self, tx: Tx, experiment: Experiment, reason: str) -> None:
        store.note(tx, experiment, self._clock(), experiment.code, reason)
        tx.after_commit(lambda: self.queue.wake(experiment.id))

    async def renew(self, user: User, wanted: str, until: datetime | None, shown: Sequence[str] = ()) -> Whole:
        """Let it end at another time, or not by itself; raises as `get` does, or `HasEnded`."""

        def write(tx: Tx) -> Whole:
            experiment = self._alive(tx, self._may_all(tx.conn, user, wanted, shown))
            experiment = store.change(tx, experiment, self._clock(), valid_until=until, warned=False)
            tx.after_commit(lambda: self.queue.wake(experiment.id))
            return store.whole(tx.conn, experiment)

        return await self._db.run(write)

    async def terminate(self, user: User, wanted: str, shown: Sequence[str] = ()) -> Whole:
        """Begin to give everything back; repeating is harmless. Raises as `get` does."""

        def write(tx: Tx) -> Whole:
            experiment = self._locked(tx, self._may_all(tx.conn, user, wanted, shown))
            if experiment.state in ALIVE:
                experiment = self._reconciler.end(tx, experiment, "", f"terminated by {user.name}", ())
            if experiment.state not in FINAL:
                self._reconciler.step(tx, experiment.id)
            found = store.load(tx.conn, experiment.id)
            assert found is not None
            return store.whole(tx.conn, found)

        return await self._db.run(write)

    def _alive(self, tx: Tx, experiment: Experiment) -> Experiment:
        experiment = self._locked(tx, experiment)
        if experiment.state not in ALIVE:
            raise HasEnded(f"The experiment is {experiment.state.value}.")
        return experiment

    @staticmethod
    def _locked(tx: Tx, experiment: Experiment) -> Experiment:
        found = store.load(tx.conn, experiment.id, lock=True)
        assert found is not None
        return found

    def _own(self, conn: Connection, user: User, wanted: str) -> Experiment:
        """An experiment of the user's own."""
        experiment = self._may_all(conn, user, wanted, ())
        if experiment.owner.name != user.name:
            raise UnknownExperiment("You have no such experiment; only its owner grants what it allows.")
        return experiment

    def _may_all(self, conn: Connection, user: User, wanted: str, shown: Sequence[str]) -> Experiment:
        """The experiment, if the user may operate all of it."""
        experiment, view = self._may(conn, user, wanted, shown)
        if not view.is_all:
            raise NotGranted("A party sees and operates its own part; this is for the experiment's owner.")
        return experiment

    def _may(self, conn: Connection, user: User, wanted: str, shown: Sequence[str]) -> tuple[Experiment, View]:
        """The experiment, if the user may operate any of it, and what they may know: nothing else may be shown to them."""
        experiment = store.find(conn, wanted, user.name)
        if experiment is not None and experiment.owner.name == user.name:
            return experiment, View()
        account = accounts.load_account(conn, user.name)
        if experiment is not None and account is not None:
            all_ = [*map(compact.read, shown), *(kept.credential for kept in wallet.content(conn, user.name))]
            credentials = granting.counting(conn, experiment.id, account.principal, all_)
            roles = {capability.party_role(party): party for party in experiment.parties}
            asked = [capability.ROLE, *roles]
            found = capability.proved(experiment.fedid, account.principal, asked, credentials, self._clock())
            if found:
                is_all = capability.ROLE in found
                return experiment, View() if is_all else View(frozenset(roles[role] for role in found))
            if shown:
                raise NotGranted("What you show does not let you operate this experiment, or only until now.")
        raise UnknownExperiment("You have no such experiment; one of somebody else's is named by its id.")


def _check_extensible(experiment: Experiment, description: str | None = None) -> None:
    """Raise `NotExtensible` for one that is not active, is being extended, or has another description by now."""
    if description not in (None, experiment.description):
        raise NotExtensible("The experiment was extended meanwhile; ask again.")
    if experiment.state is not State.ACTIVE or experiment.extension is not None:
        what = "is being extended" if experiment.extension is not None else f"is {experiment.state.value}"
        raise NotExtensible(f"The experiment {what}; what is active can be extended, once at a time.")


def _check_same(before: Whole, now: Whole) -> None:
    """Raise `NotExtensible` if its pieces are others by now: a desktop was attached, or detached."""
    was, is_ = ([one.order.spec if one.order else None for one in whole.segments] for whole in (before, now))
    if was != is_:
        raise NotExtensible("The experiment was changed meanwhile; ask again.")
