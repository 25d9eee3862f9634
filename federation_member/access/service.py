"""The access room's life: reads the policy when the member starts, and again on SIGHUP.

A policy that cannot be used keeps a member from starting; a running member keeps the one it has, and says why. What was granted
under the old one goes on until its lease is to be renewed; see controller.py.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from federation_member.access.controller import Controller
from federation_member.access.expectations import check
from federation_member.access.log import AuditLog
from federation_member.access.pool import Pool
from federation_member.access.world import NOTHING, Policy, World
from federation_member.config import PolicySection
from fedkit.clock import Clock
from fedkit.config import UnusableConfig
from fedkit.errors import FedError
from fedkit.identity.keys import PrivateKey
from fedkit.store import Database

log = structlog.get_logger()


class Access:
    """The policy in force and the controller that decides by it.

    Making it raises `UnusablePolicy`, `UnusableConfig` or `FailedExpectations`.
    """

    def __init__(self, db: Database, key: PrivateKey, address: str, config: PolicySection | None, clock: Clock) -> None:
        self._db = db
        self._config = config
        self._clock = clock
        self.world = World(key, address)
        self.controller = Controller(self.world, clock)
        self.log = AuditLog(db, key.public)
        self.world.set_policy(load(config, key.fedid), clock())

    async def reload(self) -> None:
        """Read the policy again; raises as the constructor does, and leaves everything as it is then."""
        policy = await asyncio.to_thread(load, self._config, self.world.own)
        self.world.set_policy(policy, self._clock())
        await self._db.run(self.controller.note_policy)
        log.info("policy_in_force", version=policy.rules.version, rules=len(policy.rules.rules))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reload on SIGHUP while the context is open."""
        loop = asyncio.get_running_loop()
        wanted = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, wanted.set)
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self._reload_when(wanted))
                yield
                task.cancel()
        finally:
            loop.remove_signal_handler(signal.SIGHUP)

    async def _reload_when(self, wanted: asyncio.Event) -> None:
        while True:
            await wanted.wait()
            wanted.clear()
            try:
                await self.reload()
            except FedError as error:
                log.error("policy_not_taken", code=error.code, reason=error.message)


def load(config: PolicySection | None, own: str) -> Policy:
    """Read what the configuration of the member `own` names, and run its tests; without a policy nothing is lent to others."""
    if config is None:
        return NOTHING
    pool = Pool() if config.certificates is None else Pool.load(config.certificates)
    policy = Policy.parse(_text(config.file), str(config.file), pool)
    check(policy.rules, own)
    return policy


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableConfig(f"[policy] file {path} cannot be read: {error}.") from error
