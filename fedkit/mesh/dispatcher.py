"""Brings the outbox to the peers: one lane for each, woken by commits, answers, due times and the link; never by a period.

    commit ─► offer ─┐
    answer ──────────┼─► pump(lane): while the window has room, start the next attempt
    link up, peer heard, back-off over ─┘

    attempt ─► final answer ─► one transaction: row deleted, AnswerHandler told
            ├► no answer ────► back-off of the peer (`peers`); its commands wait, one probe goes out when it is over
            └► "not now" ────► the command waits or goes again; see `courier.FOR_NOW`

Nothing here needs memory of its own to survive: after a crash the lanes are filled from the table.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import TaskGroup
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from fedkit.errors import FedError, RemoteError
from fedkit.mesh import outbox
from fedkit.mesh.api import AnswerHandler, Peer
from fedkit.mesh.courier import ATTEMPT_TIMEOUT, PEER_NOT_READY, Courier, Verdict
from fedkit.mesh.errors import BadAnswer, Bounced, LinkDown, NoAnswer, OutOfOrder, PeerUnreachable, SendAgain
from fedkit.mesh.lane import LOADED, Lane
from fedkit.mesh.outbox import Entry
from fedkit.mesh.peers import Peers
from fedkit.store import Database

log = structlog.get_logger()

WINDOW_IN_ALL = 512
SHORTEST_SILENCE = 1.0  # seconds: an attempt cut shorter by its deadline says nothing of the peer
LONGEST_HOLD = 300.0  # seconds that an unsigned hint may hold us back
OVERDUE_AT_ONCE = 100
STORE_PAUSE = 1.0  # seconds, after the store failed us
RETRY_DELAY = 0.1  # seconds, doubled with each attempt
LONGEST_RETRY_DELAY = 300.0


@dataclass
class Dispatcher:
    """Sends what the outbox holds. `now` is the time in seconds since the epoch."""

    db: Database
    peers: Peers
    courier: Courier
    handlers: dict[str, AnswerHandler]
    heard: Callable[[Peer], None]
    now: Callable[[], float]
    chance: random.Random
    lanes: dict[str, Lane] = field(default_factory=dict)
    flying: int = 0
    stopped: bool = False

    def start(self, tasks: TaskGroup, waiting: list[Peer]) -> None:
        """Begin to send; `waiting` are the peers that the table holds commands for."""
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._soon: set[str] = set()
        self._due: float | None = None
        self._due_changed = asyncio.Event()
        for peer in waiting:
            self.lanes[peer.fedid] = Lane(peer, behind=True)
        tasks.create_task(self._watch_deadlines())

    def stop(self) -> None:
        """Start nothing any more."""
        self.stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self.lanes.clear()

    def offer(self, entry: Entry) -> None:
        """Take notice of a command that has just been committed."""
        lane = self._lane(entry.peer)
        lane.offer(entry)
        if self._due is None or entry.deadline < self._due:
            self._due = entry.deadline
            self._due_changed.set()
        self._pump_soon(lane)

    def reread(self, peers: list[Peer]) -> None:
        """Other processes may have written commands for these peers."""
        for peer in peers:
            lane = self._lane(peer)
            lane.behind, lane.last_id = True, 0
            self.pump(lane)

    def wake(self) -> None:
        """The link came up: try every lane."""
        for lane in list(self.lanes.values()):
            self.pump(lane)

    def wake_peer(self, fedid: str) -> None:
        """A peer was heard: try its lane."""
        if fedid in self.lanes:
            self.pump(self.lanes[fedid])

    def pump(self, lane: Lane) -> None:
        """Start whatever may start for one peer."""
        if self.stopped or not self.courier.exchange.link.connected:
            return
        health = self.peers.of(lane.peer)
        if health.backing_off(self.now()):
            self._give_up_urgent(lane, health.next_attempt)
            self._wake_later(lane, health.next_attempt - self.now())
            return
        monotonic = self._loop.time()
        if lane.hold_until > monotonic:
            self._wake_later(lane, lane.hold_until - monotonic)
            return
        window = 1 if health.failures else int(lane.window)
        while lane.stanzas < window and self.flying < WINDOW_IN_ALL:
            batch = lane.take(monotonic, self._patient)
            if not batch:
                break
            self.flying += 1
            self._tasks.create_task(self._attempt(lane, batch, lane.predecessors(batch)))
        if lane.behind and not lane.loading and len(lane.waiting) < LOADED // 2:
            lane.loading = True
            self._tasks.create_task(self._load(lane))
        wake_at = lane.wake_at()
        if wake_at is not None:
            self._wake_later(lane, wake_at - monotonic)

    def _patient(self, entry: Entry) -> bool:
        return entry.deadline - self.now() >= ATTEMPT_TIMEOUT

    def _pump_soon(self, lane: Lane) -> None:
        """Pump once for all commands that one commit brings, so that they can share a stanza."""
        if lane.peer.fedid not in self._soon:
            self._soon.add(lane.peer.fedid)
            self._loop.call_soon(self._pump_now, lane)

    def _pump_now(self, lane: Lane) -> None:
        self._soon.discard(lane.peer.fedid)
        self.pump(lane)

    def _lane(self, peer: Peer) -> Lane:
        lane = self.lanes.get(peer.fedid)
        if lane is None:
            lane = self.lanes[peer.fedid] = Lane(peer)
        return lane

    def _wake_later(self, lane: Lane, delay: float) -> None:
        fedid = lane.peer.fedid
        if fedid in self._timers:
            self._timers[fedid].cancel()
        self._timers[fedid] = self._loop.call_later(max(delay, 0.001), self.wake_peer, fedid)

    async def _load(self, lane: Lane) -> None:
        lane.behind = False  # what is offered from here on stays in the table (it has its turn), and sets it again
        try:
            entries = await self.db.read(lambda conn: outbox.load(conn, lane.peer.fedid, lane.last_id, LOADED))
            lane.behind = lane.behind or len(entries) == LOADED
            for entry in entries:
                if entry.jti not in lane.flying and entry.deadline > self.now():
                    lane.add(entry)
        except Exception:
            log.exception("mesh_outbox_not_loaded", peer=lane.peer.address)
            lane.behind = True
            lane.hold_until = self._loop.time() + STORE_PAUSE
        finally:
            lane.loading = False
        self.pump(lane)

    async def _attempt(self, lane: Lane, batch: list[Entry], after: list[str | None]) -> None:
        started = self.now()
        for entry in batch:
            entry.attempts += 1
        then: Callable[[Entry], None]
        try:
            verdicts = await self.courier.deliver(batch, after)
        except LinkDown:
            then = partial(self._back, lane)
        except (Bounced, BadAnswer, TimeoutError) as error:
            then = partial(self._no_answer, lane, started, error)
        except Exception:  # ours: the store, or the AnswerHandler. The command stays and is tried again.
            log.exception("mesh_attempt_failed", peer=lane.peer.address)
            then = partial(self._again, lane)
        else:
            await self._take_in(lane, started, batch, verdicts)
            return
        self._landed(lane, batch)
        for entry in batch:
            then(entry)
        self.pump(lane)

    async def _take_in(self, lane: Lane, started: float, batch: list[Entry], verdicts: list[Verdict]) -> None:
        """Store what is final; what is not goes back to those that wait."""
        lane.widen()
        if any(verdict.error is None or verdict.error.code not in PEER_NOT_READY for verdict in verdicts):
            self.heard(lane.peer)
        settling = [
            self._settle(entry, verdict) for entry, verdict in zip(batch, verdicts, strict=True) if verdict.final
        ]
        # A task costs a turn of the loop, and most batches are of one command.
        stored = [await settling[0]] if len(settling) == 1 else await asyncio.gather(*settling)
        self._landed(lane, batch)
        for entry, verdict in zip(batch, verdicts, strict=True):
            if verdict.error is not None and not verdict.final:
                self._refused_for_now(lane, entry, started, verdict.error)
        for failed in filter(None, stored):
            failed.displaced = True
            self._again(lane, failed)
        self.pump(lane)

    async def _settle(self, entry: Entry, verdict: Verdict) -> Entry | None:
        """Store an outcome; return the command if that failed, which is our fault."""
        try:
            await self._close(entry, verdict.answer, verdict.error)
        except Exception:
            log.exception("mesh_outcome_not_stored", id=entry.jti, operation=entry.op, peer=entry.peer.address)
            return entry
        return None

    def _back(self, lane: Lane, entry: Entry) -> None:
        """Let a command wait again; one whose deadline has passed is left to those who watch the deadlines."""
        if self.now() < entry.deadline:
            lane.add(entry)

    def _landed(self, lane: Lane, batch: list[Entry]) -> None:
        lane.landed(batch)
        self.flying -= 1
        if self.flying == WINDOW_IN_ALL - 1:
            self._loop.call_soon(self.wake)  # others may have waited for room

    async def _close(self, entry: Entry, answer: dict[str, object], error: RemoteError | None) -> None:
        handler = self.handlers.get(entry.op)
        await self.db.run(lambda tx: outbox.close(tx, entry, handler, answer, error))

    def _refused_for_now(self, lane: Lane, entry: Entry, started: float, error: RemoteError) -> None:
        log.warning("mesh_refused_for_now", id=entry.jti, peer=lane.peer.address, code=error.code)
        wait = error.details.get("retry_after")
        if error.code in PEER_NOT_READY and isinstance(wait, int | float) and wait > 0:
            lane.hold(self._loop.time(), min(wait, LONGEST_HOLD))
            self._back(lane, entry)
        elif error.code in PEER_NOT_READY:
            self.peers.failed(entry.peer, started, f"{error.code}: {error.message}")
            self._back(lane, entry)
        elif error.code == OutOfOrder.code:
            lane.stalled = True
            self._back(lane, entry)
        elif error.code == SendAgain.code:
            entry.alone = True
            self._back(lane, entry)
        else:
            entry.displaced = entry.displaced or error.code == FedError.code
            self._again(lane, entry)

    def _no_answer(self, lane: Lane, started: float, error: Exception, entry: Entry) -> None:
        health = self.peers.of(entry.peer)
        silence = isinstance(error, TimeoutError)
        if isinstance(error, Bounced) and error.retry_after > 0:
            lane.hold(self._loop.time(), min(error.retry_after, LONGEST_HOLD))
        elif silence and (health.last_heard > started or self.now() - started < SHORTEST_SILENCE):
            log.info("mesh_attempt_lost", id=entry.jti, peer=entry.peer.address)  # that says nothing of the peer
        else:
            reason = f"no answer within {ATTEMPT_TIMEOUT:g} s" if silence else str(error)
            self.peers.failed(entry.peer, started, reason)
        self._back(lane, entry)

    def _again(self, lane: Lane, entry: Entry) -> None:
        delay = min(LONGEST_RETRY_DELAY, RETRY_DELAY * 2 ** min(entry.attempts, 20)) * self.chance.uniform(0.5, 1.0)
        entry.not_before = self._loop.time() + delay
        self._back(lane, entry)

    def _give_up_urgent(self, lane: Lane, next_attempt: float) -> None:
        """A command with a deadline fails at once where waiting is pointless: never sent, or no try before it is due."""
        for entry in list(lane.urgent):
            if entry.attempts == 0 or next_attempt >= entry.deadline:
                lane.remove(entry.jti)
                self._tasks.create_task(self._give_up(entry, entry.attempts == 0, next_attempt))

    async def _give_up(self, entry: Entry, untried: bool, next_attempt: float = 0.0) -> bool:
        """Tell that a command got no answer; return whether that could be stored."""
        health = self.peers.of(entry.peer)
        kind = PeerUnreachable if untried else NoAnswer
        details = {"last_error": health.last_error, **({"next_attempt": next_attempt} if next_attempt else {})}
        why = f": {health.last_error}" if health.last_error else ""
        message = f"{entry.peer.address} {'was not reached' if untried else 'did not answer in time'}{why}"
        try:
            await self._close(entry, {}, RemoteError(kind.code, message, details, kind.http))
        except Exception:
            log.exception("mesh_outcome_not_stored", id=entry.jti, operation=entry.op, peer=entry.peer.address)
            return False
        return True

    async def _watch_deadlines(self) -> None:
        """End the commands whose deadline passes, wherever they are: in the table, waiting or under way."""
        while True:
            try:
                await self._wait_for_deadline()
                entries = await self.db.read(lambda conn: outbox.overdue(conn, self.now(), OVERDUE_AT_ONCE))
            except Exception:
                log.exception("mesh_outbox_not_read")
                await asyncio.sleep(STORE_PAUSE)
                continue
            if not all(await asyncio.gather(*(self._overdue(entry) for entry in entries))):
                await asyncio.sleep(STORE_PAUSE)

    async def _wait_for_deadline(self) -> None:
        """Return when the earliest deadline in the table has passed, or an earlier one was written."""
        self._due_changed.clear()
        self._due = await self.db.read(outbox.next_deadline)
        with suppress(TimeoutError):
            async with asyncio.timeout(None if self._due is None else max(0.0, self._due - self.now())):
                await self._due_changed.wait()

    async def _overdue(self, row: Entry) -> bool:
        lane = self._lane(row.peer)
        entry = lane.remove(row.jti)
        untried = entry is not None and entry.attempts == 0
        return await self._give_up(row, untried)
