"""What an ns2 program makes: a simulator, its nodes, links and LANs, and what hangs on them.

An object is known to Tcl by its handle (`_o12`), to people by the name of the first global variable that it was assigned to; until
then, and for ever if it never is, by a name with the simulator's counter (`tbnode-n1`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fedkit.topology.addresses import DEFAULT_NETMASK

Queue = Literal["DropTail", "RED", "GRED"]
QUEUE_DEFAULTS = {
    "limit_": "50",
    "maxthresh_": "15",
    "thresh_": "5",
    "q_weight_": "0.002",
    "linterm_": "10",
    "queue-in-bytes_": "0",
    "bytes_": "0",
    "mean_pktsize_": "500",
    "wait_": "1",
    "setbit_": "0",
    "drop-tail_": "1",
}


@dataclass(eq=False)
class Thing:
    """Any object of the program; `values` are its variables (`$object set name value`)."""

    handle: str
    name: str
    named: bool = False
    values: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Simulator(Thing):
    """`[new Simulator]`."""


@dataclass(eq=False)
class Swallow(Thing):
    """What an unknown class or method returns: it takes every call and does nothing."""


@dataclass(eq=False)
class Passive(Thing):
    """An object that only carries variables and is told of events: agents, applications, event groups; `kind` is its class."""

    kind: str = ""
    node: Node | None = None
    options: dict[str, str] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Node(Thing):
    """A node."""

    os: str | None = None
    hardware: str = "pc"
    testbed: str | None = None
    startup: str | None = None
    failure_action: str | None = None
    fixed: str | None = None
    tarfiles: list[tuple[str, str]] = field(default_factory=list)
    rpms: list[str] = field(default_factory=list)
    ports: list[Member] = field(default_factory=list)
    routes: list[tuple[str, str]] = field(default_factory=list)
    extra: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Way:
    """One direction at a member: what is done to frames."""

    delay: float  # ms
    rate: int  # kb/s, or units.ANY, units.BEST_EFFORT
    loss: float = 0.0


@dataclass(eq=False)
class Member:
    """A node's port on a link or LAN; `to` is the way towards the wire, `back` the way from it."""

    node: Node
    wire: Wire
    to: Way
    back: Way
    ip: str | None = None
    aliases: list[str] = field(default_factory=list)
    queue: QueueHandle | None = None


@dataclass(eq=False)
class QueueHandle(Thing):
    """The queue of one direction of a link."""

    type: Queue = "DropTail"


@dataclass(eq=False)
class LinkHandle(Thing):
    """What `[$ns link $a $b]` returns: one direction of a link."""

    queue: QueueHandle | None = None
    wire: Wire | None = None


@dataclass(eq=False)
class Wire(Thing):
    """A link or a LAN."""

    kind: Literal["link", "lan"] = "link"
    rate: int = 0
    delay: int = 0  # ms from one member to another
    members: list[Member] = field(default_factory=list)
    netmask: str = DEFAULT_NETMASK
    extra: list[tuple[str, str]] = field(default_factory=list)

    def member(self, node: Node) -> Member | None:
        """The port of `node` on it."""
        return next((member for member in self.members if member.node is node), None)


@dataclass
class Event:
    """`$ns at time "command"`, names in place of handles."""

    time: float
    command: str
