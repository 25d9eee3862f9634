"""A network of `Link`s in memory, with the faults of a real one.

    network = MemoryNetwork()
    a, b = network.link("fm.site-a.test"), network.link("fm.site-b.test")
    network.cut("fm.site-a.test", "fm.site-b.test")       nothing passes, no error: only timeouts
    network.faults = lambda packet: [Fault…]              for every packet: deliver when, how often, altered how

A packet is one direction of an IQ. By default each is delivered once, in order, at the next turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fedkit.errors import FedError
from fedkit.mesh.envelope import TEXT_LIMIT
from fedkit.mesh.errors import Bounced, LinkDown
from fedkit.mesh.link import Incoming, Kind, Serve


@dataclass(frozen=True)
class Packet:
    """One direction of an IQ: `reply` tells which."""

    number: int
    source: str
    target: str
    kind: Kind
    text: str
    reply: bool
    error: Bounced | None = None


Deliveries = list[tuple[float, Packet]]
"""What becomes of a packet: (seconds until, as what) for each copy; an empty list drops it."""


def untouched(packet: Packet) -> Deliveries:
    """The faultless network."""
    return [(0.0, packet)]


class MemoryLink:
    """One end, as `fedkit.mesh.link.Link`; `up` can be switched by a test."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self._network = network
        self._address = address
        self._up = False
        self._serve: Serve | None = None
        self.problem = ""
        self._on_state: Callable[[bool], None] = lambda up: None
        self._pending: dict[int, asyncio.Future[str]] = {}
        self.sent = 0

    @property
    def address(self) -> str:
        return self._address

    @property
    def connected(self) -> bool:
        return self._up

    def attach(self, serve: Serve, on_state: Callable[[bool], None]) -> None:
        self._serve, self._on_state = serve, on_state

    async def run(self) -> None:
        self._network.links[self._address] = self
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                try:
                    self.set_up(True)
                    await asyncio.Event().wait()
                finally:
                    self._up = False
        finally:
            if self._network.links.get(self._address) is self:
                del self._network.links[self._address]

    def set_up(self, up: bool) -> None:
        """Bring the link up or down; down fails what is in flight, as the real one does."""
        if up == self._up:
            return
        self._up = up
        if not up:
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(LinkDown("The link was lost."))
        self._on_state(up)

    async def request(self, to: str, kind: Kind, text: str, timeout: float) -> str:
        if not self._up:
            raise LinkDown("The link is down.")
        assert len(text) <= TEXT_LIMIT
        self.sent += 1
        number = self._network.next_number()
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        self._network.send(Packet(number, self._address, to, kind, text, reply=False))
        try:
            async with asyncio.timeout(timeout):
                result: str = await future
                return result
        finally:
            del self._pending[number]

    def receive(self, packet: Packet) -> None:
        """A packet arrives."""
        if not self._up or self._network.links.get(self._address) is not self:
            return
        if not packet.reply:
            self._tasks.create_task(self._answer(packet))
            return
        future = self._pending.get(packet.number)
        if future is None or future.done():
            return
        if packet.error is not None:
            future.set_exception(packet.error)
        else:
            future.set_result(packet.text)

    async def _answer(self, packet: Packet) -> None:
        assert self._serve is not None
        back = replace(packet, source=packet.target, target=packet.source, reply=True, text="")
        try:
            text = await self._serve(Incoming(packet.source, packet.target, packet.kind, packet.text))
            self._network.send(replace(back, text=text))
        except FedError as error:
            hint = getattr(error, "retry_after", 0.0)
            self._network.send(replace(back, error=Bounced("undefined-condition", error.message, error.code, hint)))


@dataclass
class MemoryNetwork:
    """Carries packets between links."""

    links: dict[str, MemoryLink] = field(default_factory=dict)
    faults: Callable[[Packet], Deliveries] = untouched
    packets: list[Packet] = field(default_factory=list)
    _cuts: set[frozenset[str]] = field(default_factory=set)
    _number: int = 0

    def link(self, address: str) -> MemoryLink:
        """A new end; it joins the network when it is started, and replaces an older one."""
        return MemoryLink(self, address)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def cut(self, one: str, other: str) -> None:
        """Silently drop everything between two addresses."""
        self._cuts.add(frozenset((one, other)))

    def heal(self, one: str, other: str) -> None:
        """Undo `cut`."""
        self._cuts.discard(frozenset((one, other)))

    def send(self, packet: Packet) -> None:
        """Carry a packet, with whatever the faults make of it."""
        self.packets.append(packet)
        if frozenset((packet.source, packet.target)) in self._cuts:
            return
        loop = asyncio.get_running_loop()
        for delay, copy in self.faults(packet):
            if delay > 0:
                loop.call_later(delay, self._deliver, copy)
            else:
                loop.call_soon(self._deliver, copy)

    def inject(self, packet: Packet) -> None:
        """Deliver a packet that a hostile server made up or kept."""
        self._deliver(packet)

    def _deliver(self, packet: Packet) -> None:
        link = self.links.get(packet.target)
        if link is not None:
            link.receive(packet)
        elif not packet.reply and packet.source in self.links:
            error = Bounced("remote-server-timeout", "Component unavailable")
            back = replace(packet, source=packet.target, target=packet.source, reply=True, text="", error=error)
            self.links[packet.source].receive(back)
