"""Sees what changes in the cloud by itself: the cloud does not tell, so it is asked.

One look for each account: which of its servers changed since the last look, by the cloud's own clock. Close to when something
is about to be made (pace.py), at a modest pace otherwise, and not at all in an account that has long had nothing of ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf

import structlog

from federation_member.middleware.contract import MiddlewareError, Owned, Status
from federation_member.middleware.openstack import servers
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.kinds import Context
from federation_member.middleware.openstack.pace import Pace
from federation_member.middleware.openstack.servers import BEING_MADE, Server

log = structlog.get_logger()
FRESH = 3.0  # seconds for which it is believed that what was being made still is
OVERLAP = timedelta(seconds=2)  # servers change in the order of their `updated`, but only about
LATE = 600.0  # seconds for which an account that has nothing of ours is looked at: answers get lost, and are carried out late
Changed = Callable[[Cloud, str], None]
State = tuple[str, bool, str]


@dataclass
class _Begun:
    """Something that the cloud was asked to do with a machine."""

    at: float = field(default_factory=time.monotonic)
    making: Owned | None = None  # the machine, if that is what was asked for
    known: float = 0.0  # when that was so

    def still(self, making: Owned) -> None:
        """It is being made, as was seen now."""
        self.making, self.known = making, time.monotonic()


@dataclass
class _Account:
    """What is known of one account's servers."""

    cloud: Cloud
    seen: dict[str, tuple[str, State]] = field(default_factory=dict)  # server's id to its key and how it was
    awaited: dict[str, _Begun] = field(default_factory=dict)  # by key
    made: dict[str, Owned] = field(default_factory=dict)  # what was just made, until somebody asks
    since: datetime | None = None  # by the cloud's clock
    last: float = float("-inf")  # when it was looked at
    took: float = 0.0  # how long that took
    looked: bool = False  # so that what is seen now was not there before, if it was not seen before
    busy: float = 0.0  # when there was something of ours in it last


class Watch:
    """Calls `changed(cloud, key)` when a server with our mark is not as it was seen last, or is no longer being made."""

    def __init__(self, context: Context, changed: Changed) -> None:
        self._marks, self._poll, self._changed = context.marks, context.config.poll, changed
        self._accounts: dict[str, _Account] = {}
        self._woken = asyncio.Event()
        self._pace = Pace()

    def follow(self, cloud: Cloud) -> None:
        """There is something of ours in the account."""
        if cloud.account not in self._accounts:
            self._accounts[cloud.account] = _Account(cloud)
            self._woken.set()
        known = self._accounts[cloud.account]
        known.cloud, known.busy = cloud, time.monotonic()

    def begun(self, cloud: Cloud, key: str, making: Owned | None = None) -> None:
        """A server is being made, as the cloud just said, or something is done to it: look soon."""
        self.follow(cloud)
        awaited = self._accounts[cloud.account].awaited
        if key not in awaited:
            awaited[key] = _Begun()
            self._woken.set()
        if making is not None:
            awaited[key].still(making)

    def known(self, cloud: Cloud, key: str) -> Owned | None:
        """The machine as it was just seen, for who is making it: it need not be looked for again.

        One that is made is told to whom asks first.
        """
        account = self._accounts.get(cloud.account)
        if account is None:
            return None
        begun = account.awaited.get(key)
        if begun is not None and time.monotonic() - begun.known < FRESH:
            return begun.making
        return account.made.pop(key, None)

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
                if self._due(account) <= time.monotonic():
                    await self._look(account)
            due = min((self._due(account) for account in self._accounts.values()), default=None)
            try:
                async with asyncio.timeout(None if due is None else due - time.monotonic()):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Look once; the first look at an account only tells what is not well there."""
        for account in list(self._accounts.values()):
            await self._look(account)

    def _due(self, account: _Account) -> float:
        """When to look again; half of the time at most is spent with looking."""
        soon = min((self._pace.next_look(begun.at, account.last) for begun in account.awaited.values()), default=inf)
        return account.last + max(min(soon - account.last, self._poll), min(account.took, self._poll))

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
        finally:
            began, account.last = account.last, time.monotonic()
            account.took = account.last - began
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
        if server.status in BEING_MADE and not server.is_going and key in account.awaited:
            account.awaited[key].still(servers.owned(key, server))
            return  # there is nothing to do but wait
        if self._is_made(account, key, server) or (before != now and not (first and self._is_well(key, server))):
            self._changed(account.cloud, key)

    def _is_made(self, account: _Account, key: str, server: Server) -> bool:
        """Whether this is what was waited for; it may be told as it is, if it is well and the only one."""
        begun = None if server.status in BEING_MADE else account.awaited.pop(key, None)
        account.made.pop(key, None)
        if begun is None:
            return False
        if self._is_well(key, server):
            if begun.making is not None:
                self._pace.learn(time.monotonic() - begun.at)
            if [owner for owner, _ in account.seen.values()].count(key) == 1:
                account.made[key] = servers.owned(key, server)
        return True

    def _is_well(self, key: str, server: Server) -> bool:
        return servers.owned(key, server).status is Status.RUNNING


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
