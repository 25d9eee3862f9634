"""Brings the outbox to the peers: one lane for each, woken by commits, answers, due times and the link; never by a period.

    commit ─► offer ─┐
    answer ──────────┼─► pump(lane): while the window has room, start the next attempt
    link up, peer heard, back-off over ─┘

    attempt ─► final answer ─► one transaction: row deleted, AnswerHandler told
            ├► no answer ────► back-off of the peer (`peers`); its commands wait, one probe goes out when it is over
            └► "not now" ────► the command waits or goes again; see `_FOR_NOW`

Nothing here needs memory of its own to survive: after a crash the lanes are filled from the table.
"""

from __future__ import annotations

import asyncio
import random
from asyncio import TaskGroup
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from fedkit.errors import FedError, RemoteError
from fedkit.mesh import outbox
from fedkit.mesh.api import AnswerHandler, Peer
from fedkit.mesh.envelope import INLINE_LIMIT, AnswerClaims, Draft
from fedkit.mesh.errors import (
    BadAnswer,
    Bounced,
    Busy,
    Expired,
    Incomplete,
    KeyConflict,
    LinkDown,
    Misdirected,
    NoAnswer,
    OutOfOrder,
    PeerUnreachable,
    RateLimited,
    Replayed,
)
from fedkit.mesh.exchange import Exchange
from fedkit.mesh.lane import LOADED, Lane
from fedkit.mesh.outbox import Entry
from fedkit.mesh.peers import Peers
from fedkit.mesh.upload import upload
from fedkit.store import Database

log = structlog.get_logger()

WINDOW_IN_ALL = 512
ATTEMPT_TIMEOUT = 5.0  # seconds
UPLOAD_TIMEOUT = 60.0  # seconds for all chunks of one body
LONGEST_HOLD = 300.0  # seconds that an unsigned hint may hold us back
OVERDUE_AT_ONCE = 100
STORE_PAUSE = 1.0  # seconds, after the store failed us
RETRY_DELAY = 0.1  # seconds, doubled with each attempt
LONGEST_RETRY_DELAY = 300.0

# Signed refusals that are about this moment, not about the command: nothing was executed, and it is tried again.
_PEER_NOT_READY = {Expired.code, Misdirected.code, KeyConflict.code, Busy.code, RateLimited.code}
_FOR_NOW = _PEER_NOT_READY | {Replayed.code, Incomplete.code, OutOfOrder.code, FedError.code}


def _refusal(answer: AnswerClaims) -> RemoteError | None:
    error = answer.error
    return None if error is None else RemoteError(error.code, error.message, error.details)


class _NotFinal(Exception):
    """The peer refused for now; the command stays."""

    def __init__(self, error: RemoteError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass
class Dispatcher:
    """Sends what the outbox holds. `now` is the time in seconds since the epoch."""

    db: Database
    peers: Peers
    exchange: Exchange
    handlers: dict[str, AnswerHandler]
    heard: Callable[[Peer], None]
    now: Callable[[], float]
    chance: random.Random
    numbers: Iterator[int]
    lanes: dict[str, Lane] = field(default_factory=dict)
    flying: int = 0
    stopped: bool = False

    def start(self, tasks: TaskGroup, waiting: list[Peer]) -> None:
        """Begin to send; `waiting` are the peers that the table holds commands for."""
        self._tasks = tasks
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}
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
        if self.stopped or not self.exchange.link.connected:
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
        while len(lane.flying) < window and self.flying < WINDOW_IN_ALL:
            entry = lane.take(monotonic)
            if entry is None:
                break
            self.flying += 1
            self._tasks.create_task(self._attempt(lane, entry, lane.predecessor(entry)))
        if lane.behind and not lane.loading and len(lane.waiting) < LOADED // 2:
            lane.loading = True
            self._tasks.create_task(self._load(lane))
        wake_at = lane.wake_at()
        if wake_at is not None:
            self._wake_later(lane, wake_at - monotonic)

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
        lane.behind = False  # what is offered from here on may be missing in what we read, and sets it again
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

    async def _attempt(self, lane: Lane, entry: Entry, after: str | None) -> None:
        started = self.now()
        entry.attempts += 1
        then: Callable[[], None] | None = None
        try:
            answer = await self._deliver(entry, after)
            lane.widen()
            self.heard(entry.peer)
            await self._close(entry, answer.body or {}, _refusal(answer))
        except LinkDown:
            then = partial(lane.add, entry)
        except _NotFinal as refusal:
            then = partial(self._refused_for_now, lane, entry, started, refusal.error)
        except (Bounced, BadAnswer, TimeoutError) as error:
            then = partial(self._no_answer, lane, entry, started, error)
        except Exception:  # ours: the store, or the AnswerHandler. The command stays and is tried again.
            log.exception("mesh_outcome_not_stored", id=entry.jti, operation=entry.op, peer=entry.peer.address)
            entry.displaced = True
            then = partial(self._again, lane, entry)
        self._landed(lane, entry)
        if then is not None:
            then()
        self.pump(lane)

    def _landed(self, lane: Lane, entry: Entry) -> None:
        del lane.flying[entry.jti]
        self.flying -= 1
        if self.flying == WINDOW_IN_ALL - 1:
            self._loop.call_soon(self.wake)  # others may have waited for room

    async def _deliver(self, entry: Entry, after: str | None) -> AnswerClaims:
        """Make one attempt and return a final answer."""
        content = f'"body":{entry.body}'
        body = entry.body.encode()
        if len(body) > INLINE_LIMIT:
            async with asyncio.timeout(UPLOAD_TIMEOUT):
                content = await upload(self.exchange, entry.peer, body, self.now, ATTEMPT_TIMEOUT)
        now = self.now()
        timeout = max(0.0, min(ATTEMPT_TIMEOUT, entry.deadline - now))
        draft = Draft(
            to=entry.peer,
            jti=entry.jti,
            n=next(self.numbers),
            op=entry.op,
            content=content,
            iat=now,
            exp=now + timeout,
            since=entry.created,
            after=after,
        )
        answer = await self.exchange("set", draft, timeout)
        refusal = _refusal(answer)
        if refusal is not None and refusal.code in _FOR_NOW:
            raise _NotFinal(refusal)
        return answer

    async def _close(self, entry: Entry, answer: dict[str, object], error: RemoteError | None) -> None:
        handler = self.handlers.get(entry.op)
        await self.db.run(lambda tx: outbox.close(tx, entry, handler, answer, error))

    def _refused_for_now(self, lane: Lane, entry: Entry, started: float, error: RemoteError) -> None:
        log.warning("mesh_refused_for_now", id=entry.jti, operation=entry.op, peer=entry.peer.address, code=error.code)
        if error.code in _PEER_NOT_READY:
            self.peers.failed(entry.peer, started, f"{error.code}: {error.message}")
            lane.add(entry)
            return
        self.heard(entry.peer)
        if error.code == OutOfOrder.code:
            lane.stalled = True
            lane.add(entry)
            return
        entry.displaced = entry.displaced or error.code == FedError.code
        self._again(lane, entry)

    def _no_answer(self, lane: Lane, entry: Entry, started: float, error: Exception) -> None:
        if isinstance(error, Bounced) and error.retry_after > 0:
            lane.hold(self._loop.time(), min(error.retry_after, LONGEST_HOLD))
        elif isinstance(error, TimeoutError) and self.peers.of(entry.peer).last_heard > started:
            log.info("mesh_attempt_lost", id=entry.jti, peer=entry.peer.address)  # lost on the way; the peer is well
        else:
            reason = str(error) if isinstance(error, FedError) else f"no answer within {ATTEMPT_TIMEOUT:g} s"
            self.peers.failed(entry.peer, started, reason)
        lane.add(entry)

    def _again(self, lane: Lane, entry: Entry) -> None:
        delay = min(LONGEST_RETRY_DELAY, RETRY_DELAY * 2 ** min(entry.attempts, 20)) * self.chance.uniform(0.5, 1.0)
        entry.not_before = self._loop.time() + delay
        lane.add(entry)

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
