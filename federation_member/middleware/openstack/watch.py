"""Sees what changes in the cloud by itself: the cloud does not tell, so it is asked.

One look for each account: which of its servers changed since the last look, by the cloud's own clock. Soon and often while
something is being made, at a modest pace otherwise, and not at all in an account that has long had nothing of ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from federation_member.middleware.contract import MiddlewareError, Status
from federation_member.middleware.openstack import servers
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.kinds import Context
from federation_member.middleware.openstack.servers import BEING_MADE, Server

log = structlog.get_logger()
SOONEST = 0.3  # seconds between two looks while something is new
SLOWING = 8  # the pause is this part of the time since something was begun
OVERLAP = timedelta(seconds=2)  # servers change in the order of their `updated`, but only about
LATE = 600.0  # seconds for which an account that has nothing of ours is looked at: answers get lost, and are carried out late
Changed = Callable[[Cloud, str], None]
State = tuple[str, bool, str]


@dataclass
class _Account:
    """What is known of one account's servers."""

    cloud: Cloud
    seen: dict[str, tuple[str, State]] = field(default_factory=dict)  # server's id to its key and how it was
    awaited: dict[str, float] = field(default_factory=dict)  # keys of what is being made, and since when
    made: dict[str, Server] = field(default_factory=dict)  # servers that were just made, until somebody asks
    since: datetime | None = None  # by the cloud's clock
    last: float = float("-inf")  # when it was looked at
    looked: bool = False  # so that what is seen now was not there before, if it was not seen before
    busy: float = 0.0  # when there was something of ours in it last


class Watch:
    """Calls `changed(cloud, key)` when a server with our mark is not as it was seen last, or is no longer being made."""

    def __init__(self, context: Context, changed: Changed) -> None:
        self._marks, self._poll, self._changed = context.marks, context.config.poll, changed
        self._accounts: dict[str, _Account] = {}
        self._woken = asyncio.Event()

    def follow(self, cloud: Cloud) -> None:
        """There is something of ours in the account."""
        if cloud.account not in self._accounts:
            self._accounts[cloud.account] = _Account(cloud)
            self._woken.set()
        known = self._accounts[cloud.account]
        known.cloud, known.busy = cloud, time.monotonic()

    def begun(self, cloud: Cloud, key: str) -> None:
        """A server is being made, so look soon."""
        self.follow(cloud)
        awaited = self._accounts[cloud.account].awaited
        if key not in awaited:
            awaited[key] = time.monotonic()
            self._woken.set()

    def made(self, cloud: Cloud, key: str) -> Server | None:
        """The server that was told of because it is made now, to whom asks first: it need not be looked for again."""
        account = self._accounts.get(cloud.account)
        return None if account is None else account.made.pop(key, None)

    def forget(self, cloud: Cloud, key: str) -> None:
        """What was under the key is gone on purpose."""
        if (account := self._accounts.get(cloud.account)) is None:
            return
        account.awaited.pop(key, None)
        account.made.pop(key, None)
        for server in [server for server, (owner, _) in account.seen.items() if owner == key]:
            del account.seen[server]

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._woken.clear()
            for account in list(self._accounts.values()):
                if account.awaited or time.monotonic() - account.last >= self._poll:
                    await self._look(account)
            try:
                async with asyncio.timeout(self._pause()):
                    await self._woken.wait()
                    await asyncio.sleep(SOONEST)
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Look once; the first look at an account only tells what is not well there."""
        for account in list(self._accounts.values()):
            await self._look(account)

    def _pause(self) -> float | None:
        begun = [moment for account in self._accounts.values() for moment in account.awaited.values()]
        if begun:
            return min(max((time.monotonic() - max(begun)) / SLOWING, SOONEST), self._poll)
        return self._poll if self._accounts else None

    async def _look(self, account: _Account) -> None:
        account.last = time.monotonic()
        try:
            if account.since is None:
                found = await servers.of_site(account.cloud, self._marks)
            else:
                found = await servers.changed_since(account.cloud, account.since.strftime("%Y-%m-%dT%H:%M:%SZ"))
        except MiddlewareError as error:
            log.info("not_watched", account=account.cloud.account, reason=error.message)
            return
        for server in found:
            self._take(account, server, first=not account.looked)
        account.looked = True
        updated = [moment - OVERLAP for server in found if (moment := _moment(server.updated)) is not None]
        account.since = max(updated, default=account.since)
        if account.seen or account.awaited:
            account.busy = time.monotonic()
        elif time.monotonic() - account.busy > LATE:
            self._accounts.pop(account.cloud.account, None)

    def _take(self, account: _Account, server: Server, *, first: bool) -> None:
        before = account.seen.get(server.id)
        key = self._marks.key_of_tags(server.tags) or (before and before[0])
        if not key or (server.is_gone and before is None):
            return
        now = (key, (server.status, server.is_going, server.name))
        if server.is_gone:
            del account.seen[server.id]
        else:
            account.seen[server.id] = now
        is_made = server.status not in BEING_MADE and account.awaited.pop(key, None) is not None
        is_well = servers.owned(key, server).status is Status.RUNNING
        if is_made and is_well and [owner for owner, _ in account.seen.values()].count(key) == 1:
            account.made[key] = server
        elif not is_made:
            account.made.pop(key, None)
        if is_made or (before != now and not (first and is_well)):
            self._changed(account.cloud, key)


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
