"""One attachment, from asking for it to its end.

    ask the member ─► a portal waits ─► interface, names, routes ─► connect ─► until Ctrl-C, or the command ends ─► all is put back

The member is asked again now and then, or it would take the desktop out. One that is away for a while is no reason to part: frames do
not go by it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any
from urllib.parse import urlsplit

import asyncssh

from deploy.commands.client import Client, segment
from deploy.commands.errors import NotFulfilled, NotReachable, TimedOut
from deploy.commands.output import Format, say, show
from fedkit.desktop import interface, machine, rooms
from fedkit.desktop.seat import Portal, Seat, check_apart, names_for, portal_of, read
from fedkit.desktop.traces import HOSTS, Trace
from fedkit.desktop.way import Ground, is_joined, way
from fedkit.errors import FedError
from fedkit.portal import service

RENEW = 300.0  # seconds; whoever is not heard of for half an hour is taken out
LOOK = 1.0  # seconds between two looks at the attachment while it is not joined
SELDOM = 15  # times as long while it is
NAMED = 10  # names that are said
COLUMNS = {name: name for name in ("name", "address", "at", "interface", "names")}


def path_of(wanted: str, attachment: str) -> str:
    """Where the API has an attachment of an experiment."""
    return f"/experiments/{segment(wanted)}/attachments/{segment(attachment)}"


@dataclass
class Attachment:
    """`body` is what the member is asked for; `run` adds the key."""

    client: Client
    wanted: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    trace: Trace
    command: Sequence[str]
    timeout: float
    output: Format
    _told: dict[str, Any] = field(default_factory=dict)
    _renewed: float = 0.0
    _said: str = ""

    async def run(self) -> int:
        """Be attached; returns an exit status. Signals end it in order; where there is a command, Ctrl-C is the command's."""
        logging.getLogger("asyncssh").setLevel(logging.ERROR)
        logging.getLogger("fedkit.portal").addHandler(_Sayer())
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        loop.add_signal_handler(signal.SIGINT, _nothing if self.command else task.cancel)
        try:
            return await self._live()
        except asyncio.CancelledError:
            return 0
        except BaseExceptionGroup as group:
            raise _first(group) from group

    async def _live(self) -> int:
        key = asyncssh.generate_private_key("ssh-ed25519")  # it is on no disk
        self.body["public_key"] = key.export_public_key().decode().strip()
        try:
            async with asyncio.timeout(self.timeout):
                await self._until_ready()
        except TimeoutError as error:
            raise TimedOut(f"After {self.timeout:g} s no portal waits for it; ask again later.") from error
        seat, private = read(self._told), key.export_private_key().decode()
        return await (self._in_a_room(seat, private) if self.command else self._on_this_machine(seat, private))

    # Places

    async def _on_this_machine(self, seat: Seat, private: str) -> int:
        lines, left_out = names_for(seat, machine.names())
        check_apart(seat, machine.networks(), await asyncio.to_thread(self._needed))
        if left_out:
            say(f"Not in {HOSTS}, because others could be meant: {', '.join(left_out[:NAMED])}.")
        tap = interface.make(self._interface, seat.address, seat.routes)
        try:
            self.trace.put_names([f"{address} {' '.join(names)}" for address, names in lines])
            await self._serve(seat, private, tap.fd, self._show)
        finally:
            tap.close()
        return 0

    async def _in_a_room(self, seat: Seat, private: str) -> int:
        lines, _left_out = names_for(seat, machine.names())
        text = machine.hosts_file([f"{address} {' '.join(names)}" for address, names in lines])
        async with rooms.room(seat, self._interface, text, self.command) as room, asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve(seat, private, room.descriptor, room.go))
            status = await room.process.wait()
            serving.cancel()
        return 128 - status if status < 0 else status

    @property
    def _interface(self) -> str:
        return f"fed{str(self.body['id'])[:8]}"

    def _needed(self) -> list[IPv4Address]:
        """What must be reached as it is now."""
        portal = portal_of(self._told)
        hosts = [urlsplit(self.client.url).hostname, None if portal is None else portal.host]
        return [address for host in hosts if host for address in machine.addresses(host)]

    # The way

    async def _serve(self, seat: Seat, private: str, descriptor: int, joined: Callable[[], None]) -> None:
        """Be joined until cancelled; `joined` is called once. Raises `NotFulfilled` when it was detached, `TimedOut` if it never joins."""
        until = time.monotonic() + self.timeout
        ground = Ground(self._interface, descriptor)
        while True:
            place = portal_of(self._told)
            assert place is not None
            async with way(seat, place, private, ground, self.trace.state) as portal:
                while not is_joined(portal):
                    if time.monotonic() > until:
                        raise TimedOut(f"After {self.timeout:g} s it is not joined: {portal.why}.")
                    await asyncio.sleep(LOOK)
                    if await self._is_elsewhere(place):
                        break
                else:
                    joined()
                    joined, until = _nothing, math.inf
                    while not await self._is_elsewhere(place):
                        await _while_joined(portal)

    async def _is_elsewhere(self, place: Portal) -> bool:
        """Look at the attachment: whether another portal waits for it by now."""
        await self._look()
        return portal_of(self._told) not in (None, place)

    # The member

    async def _until_ready(self) -> None:
        self._told = await self._post()
        self._renewed = time.monotonic()
        say(f"{self._told['name']} gets {self._told['address']} on {self._told['at']}, and waits for a portal there.")
        while portal_of(self._told) is None:
            await asyncio.sleep(LOOK)
            await self._look()

    async def _look(self) -> None:
        """See how the attachment is, and renew it if that is due; raises `NotFulfilled` where it is none any more."""
        is_due = time.monotonic() - self._renewed > RENEW
        try:
            self._told = await self._get()
            if is_due:
                self._told = await self._post()
                self._renewed = time.monotonic()
        except NotReachable as error:
            if error.message != self._said:
                self._said = error.message
                say(f"{error.message} What is joined stays so meanwhile.")
        if self._told["state"] in ("failed", "leaving"):
            raise NotFulfilled(f"It is attached no more: {self._told['reason'] or 'it was detached'}.")

    async def _post(self) -> dict[str, Any]:
        path = f"/experiments/{segment(self.wanted)}/attachments"
        told: dict[str, Any] = await asyncio.to_thread(self.client.post, path, self.body, self.headers)
        return told

    async def _get(self) -> dict[str, Any]:
        path = path_of(self.wanted, self.body["id"])
        told: dict[str, Any] = await asyncio.to_thread(self.client.request, "GET", path, None, self.headers)
        return told

    def _show(self) -> None:
        names = [name for line in self._told["hosts"] for name in line["names"]]
        address = f"{self._told['address']}/{self._told['prefix_length']}"
        known = {"name": self._told["name"], "address": address, "at": self._told["at"]}
        show(known | {"interface": self._interface, "names": names}, self.output, COLUMNS)
        sys.stdout.flush()
        say("It is joined. Ctrl-C ends that.")


async def _while_joined(portal: service.Portal) -> None:
    """Until it is time to look, which is soon where the way broke."""
    for _ in range(SELDOM):
        await asyncio.sleep(LOOK)
        if not is_joined(portal):
            return


class _Sayer(logging.Handler):
    """Says what a portal logs, which may quote its peer."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def _nothing() -> None:
    """Nobody needs to be told."""


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first, of those that a person is told."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = next((one for one in error.exceptions if isinstance(one, FedError)), error.exceptions[0])
    return error
