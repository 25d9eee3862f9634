"""Starts, stops and kills the services of the lab by role. Nothing restarts by itself: a test says when."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from deploy.lab.children import Child, Children
from deploy.lab.errors import LabFailed, Unknown
from deploy.lab.readiness import Notification, listens
from deploy.lab.services import Service

STOP_TIMEOUT = 10.0  # seconds from SIGTERM to SIGKILL
LOG_TAIL = 4000  # octets

Report = Callable[[str, float], None]
"""Told what has been done and how many seconds it took."""


@dataclass
class _Entry:
    service: Service
    child: Child | None = None
    ready: bool = False
    status: int | None = None


class Supervisor:
    """The services by role, and the process of each that runs."""

    def __init__(self, children: Children, services: Iterable[Service]) -> None:
        self._children = children
        self._entries = {service.role: _Entry(service) for service in services}

    @property
    def roles(self) -> list[str]:
        """All roles."""
        return list(self._entries)

    async def start(self, role: str) -> float:
        """Start a service that does not run, wait until it is ready, and return the seconds that took."""
        entry = self._find(role)
        if entry.child is not None:
            raise Unknown(f"{role} runs already.")
        loop = asyncio.get_running_loop()
        begin = loop.time()
        notification = None if entry.service.ports else Notification(entry.service.notify_socket, entry.service.user)
        try:
            child = self._spawn(entry)
            await self._wait_ready(entry, child, notification)
        finally:
            if notification is not None:
                notification.close()
        return loop.time() - begin

    async def stop(self, role: str) -> int:
        """End a service with SIGTERM and, if it does not listen, SIGKILL; return its exit status."""
        child = self._running(role)
        os.kill(child.pid, signal.SIGTERM)
        try:
            return await asyncio.wait_for(asyncio.shield(child.ended), STOP_TIMEOUT)
        except TimeoutError:
            return await self.kill(role, signal.SIGKILL)

    async def kill(self, role: str, number: int) -> int:
        """Send a signal to a service's process and, if that is SIGKILL, wait until it is gone."""
        child = self._running(role)
        send = os.killpg if self._find(role).service.whole else os.kill  # each leads a group of its own
        send(child.pid, number)
        return await child.ended if number == signal.SIGKILL else 0

    def status(self) -> dict[str, dict[str, Any]]:
        """Each role's host, pid (in the lab's pid namespace), readiness and last exit status."""
        return {
            role: {
                "host": entry.service.host,
                "pid": entry.child.pid if entry.child else None,
                "ready": entry.ready,
                "status": entry.status,
            }
            for role, entry in self._entries.items()
        }

    def log(self, role: str, octets: int = LOG_TAIL) -> str:
        """The end of a service's output."""
        with suppress(FileNotFoundError), self._find(role).service.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - octets))
            return file.read().decode(errors="replace")
        return ""

    def _spawn(self, entry: _Entry) -> Child:
        service = entry.service
        output = os.open(service.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            child = self._children.spawn(service.full_command(), service.full_environment(), output=output)
        finally:
            os.close(output)
        entry.child, entry.ready, entry.status = child, False, None
        child.ended.add_done_callback(lambda ended: self._ended(entry, ended))
        return child

    async def _wait_ready(self, entry: _Entry, child: Child, notification: Notification | None) -> None:
        service = entry.service
        answer = notification.ready() if notification else listens(child.pid, service.ports, udp=service.udp)
        ready = asyncio.ensure_future(answer)
        try:
            waiting: set[asyncio.Future[Any]] = {ready, child.ended}
            await asyncio.wait(waiting, timeout=service.patience, return_when=asyncio.FIRST_COMPLETED)
            if child.ended.done() or not ready.done():
                what = f"ended with status {child.ended.result()}" if child.ended.done() else "did not get ready"
                raise LabFailed(f"{service.role} {what}:\n{self.log(service.role)}", role=service.role)
            ready.result()
        finally:
            ready.cancel()
        entry.ready = True

    @staticmethod
    def _ended(entry: _Entry, ended: asyncio.Future[int]) -> None:
        entry.child, entry.ready, entry.status = None, False, ended.result()

    def _find(self, role: str) -> _Entry:
        try:
            return self._entries[role]
        except KeyError:
            raise Unknown(f"No role {role!r}; there is {', '.join(self._entries)}.") from None

    def _running(self, role: str) -> Child:
        child = self._find(role).child
        if child is None:
            raise Unknown(f"{role} does not run.")
        return child
