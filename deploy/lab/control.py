"""The lab's control channel, seen from pid 1: JSON lines on an abstract unix socket.

A request is `{"op": …, …}`; the answer is any number of `{"event": …}` lines and then one line with `"ok"`: true and a
`result`, or false and an `error` (code, message, details). Abstract names have no file permissions, so the peer's uid is
asked of the kernel, and nobody but the lab's owner is served.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from deploy.lab.build import Lab
from deploy.lab.credentials import peer_credentials
from deploy.lab.errors import LabFailed, Unknown
from fedkit.errors import FedError

LINE_LIMIT = 64 * 1024
Line = dict[str, Any]
OWNER = 0  # the owner's uid as the lab's user namespace shows it; and root's where it has none of its own


class Build:
    """The build's progress, for everybody who waits for its end."""

    def __init__(self) -> None:
        self.error: FedError | None = None
        self._events: list[Line] = []
        self._done = False
        self._changed = asyncio.Event()

    async def run(self, lab: Lab) -> None:
        """Build the lab; keep what it reports and how it ended."""
        try:
            await lab.build(lambda what, seconds: self._add({"event": what, "seconds": round(seconds, 3)}))
        except* FedError as group:
            self.error = _first(group)
        except* OSError as group:
            self.error = LabFailed(f"The lab could not be built: {_first(group)}")
        self._done = True
        self._wake()

    async def follow(self, tell: Callable[[Line], Awaitable[None]]) -> None:
        """Tell all events from the first one on; return at the end, or raise what the build failed with."""
        told = 0
        while told < len(self._events) or not self._done:
            changed = self._changed
            while told < len(self._events):
                await tell(self._events[told])
                told += 1
            if not self._done and told == len(self._events):
                await changed.wait()
        if self.error is not None:
            raise self.error

    def _add(self, event: Line) -> None:
        self._events.append(event)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Control:
    """Serves the lab's owner until `down`."""

    def __init__(self, lab: Lab, build: Build) -> None:
        self.down = asyncio.Event()
        self._lab = lab
        self._build = build
        supervisor = lab.supervisor
        self._operations: dict[str, Callable[..., Awaitable[Any]]] = {
            "start": supervisor.start,
            "stop": supervisor.stop,
            "kill": lambda role, number: supervisor.kill(role, signal.Signals(number)),
            "log": _later(supervisor.log),
            "status": _later(self._status),
            "partition": lab.partition,
            "heal": lab.heal,
            "certificate": lab.certificate,
            "down": _later(self.down.set),
        }

    async def serve(self, listener: socket.socket) -> None:
        """Answer requests until cancelled; each connection is a task of this one group."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        listener.listen()  # once more, now as pid 1: from here on SO_PEERCRED tells a client our pid (unix(7))
        async with asyncio.TaskGroup() as group:
            while True:
                connection, _ = await loop.sock_accept(listener)
                if peer_credentials(connection)[1] != OWNER:
                    connection.close()
                    continue
                group.create_task(self._converse(connection))

    async def _converse(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=LINE_LIMIT)

        async def tell(line: Line) -> None:
            writer.write(json.dumps(line).encode() + b"\n")
            await writer.drain()

        try:
            while request := await reader.readline():
                await tell(await self._answer(request, tell))
        except (ConnectionError, ValueError):
            return  # the client went away, or does not speak our language
        finally:
            writer.close()

    async def _answer(self, request: bytes, tell: Callable[[Line], Awaitable[None]]) -> Line:
        arguments = json.loads(request)
        operation = arguments.pop("op")
        try:
            if operation == "wait":
                await self._build.follow(tell)
                return {"ok": True, "result": self._status()}
            if operation not in self._operations:
                raise Unknown(f"No operation {operation!r}.")
            return {"ok": True, "result": await self._operations[operation](**arguments)}
        except FedError as error:
            return {"ok": False, "error": error.to_dict()}

    def _status(self) -> Line:
        return {"plan": self._lab.plan.to_json(), "services": self._lab.supervisor.status()}


def _later(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(**arguments: Any) -> Any:
        return function(**arguments)

    return call


def _first(group: BaseExceptionGroup[Any]) -> Any:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
