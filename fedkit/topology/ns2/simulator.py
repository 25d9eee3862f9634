"""The Simulator's methods, those of the objects that it makes, and `new`.

Every handler takes the program, the object and the arguments of the call, and returns what Tcl gets; tables at the end say which
method is whose. An unknown method is warned of and returns an object that swallows calls, as Emulab's does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fedkit.topology.ns2 import units
from fedkit.topology.ns2.objects import (
    QUEUE_DEFAULTS,
    Event,
    LinkHandle,
    Member,
    Node,
    Passive,
    QueueHandle,
    Simulator,
    Swallow,
    Thing,
    Way,
    Wire,
)
from fedkit.topology.ns2.program import EVENTS_LIMIT, Program, Wrong

Handler = Callable[[Program, Thing, Sequence[str]], str]

ROUTING = {"Static": "static", "Static-ddijk": "static-ddijk", "Static-old": "static-old", "Session": "ospf"}
ROUTING |= {"ospf": "ospf", "Manual": "manual"}
AGENTS = {"UDP", "TCP", "TCP/FullTcp", "Null", "TCPSink"}
AGENTS |= {f"TCP/FullTcp/{kind}" for kind in ("Reno", "Newreno", "Tahoe", "Sack")}
AGENTS |= {f"TCP/{kind}" for kind in ("Reno", "Newreno", "Tahoe", "Sack")}
APPLICATIONS = {"Traffic/CBR", "FTP", "Telnet", "Program"}
_SPECIAL = ("make-portinvlan", "make-path")


def call(program: Program, handle: str, method: str, args: Sequence[str]) -> str:
    """Carry out `$object method args…`."""
    thing = program.things[handle]
    if isinstance(thing, Swallow):
        return handle
    if method == "set":
        return _variable(program, thing, args)
    handler = _METHODS.get(type(thing), {}).get(method)
    if handler is None:
        program.warn("ns2.unknown_method", f"{thing.name} has no method {method[:80]!r}; the call is ignored.")
        return swallow(program)
    return handler(program, thing, args)


def new(program: Program, args: Sequence[str]) -> str:
    """`new CLASS ?args?`."""
    _count("new", args, 1, 9)
    kind = args[0]
    if kind == "Simulator":
        if program.simulator is not None:
            raise Wrong("ns2.second_simulator", "A program has one Simulator; use the first.")
        program.simulator = program.keep(Simulator(program.handle(), "tbsim"))
        return program.simulator.handle
    family, _, rest = kind.partition("/")
    known = {"Agent": AGENTS, "Application": APPLICATIONS}.get(family, set())
    if rest in known or kind in ("Program", "EventSequence", "EventTimeline", "EventGroup"):
        return _passive(program, kind)
    program.warn("ns2.unknown_class", f"There is no class {kind[:80]!r}; calls of its object are ignored.")
    return swallow(program)


def swallow(program: Program) -> str:
    """An object that takes every call."""
    handle = program.handle()
    return program.keep(Swallow(handle, f"swallow{handle}")).handle


def _passive(program: Program, kind: str, node: Node | None = None) -> str:
    handle = program.handle()
    return program.keep(Passive(handle, f"{kind.rpartition('/')[2].lower()}{handle}", kind=kind, node=node)).handle


def _variable(_program: Program, thing: Thing, args: Sequence[str]) -> str:
    _count("set", args, 1, 2)
    if len(args) == 2:
        thing.values[args[0]] = args[1]
    if args[0] not in thing.values:
        raise Wrong("ns2.undefined", f"{thing.name} has no variable {args[0][:80]!r}.")
    return thing.values[args[0]]


def _count(what: str, args: Sequence[str], least: int, most: int) -> None:
    if not least <= len(args) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise Wrong("ns2.wrong_arguments", f"{what} takes {wanted} arguments; {len(args)} are given.")


# The simulator


def _node(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("node", args, 0, 1)
    return program.keep(Node(program.handle(), program.automatic_name("tbnode-n"))).handle


def _duplex_link(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("duplex-link", args, 5, 8)
    ends = [program.node(args[0]), program.node(args[1])]
    if ends[0] is ends[1]:
        raise Wrong("ns2.bad_link", f"A link joins two nodes; both ends are {ends[0].name}.")
    wire = _wire(program, "link", "tblink-l", ends, args[2], args[3])
    queue_type = _queue_type(program, args[4])
    for member in wire.members:
        member.queue = _queue(program, queue_type)
    return wire.handle


def _make_lan(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("make-lan", args, 3, 9)
    ends = [program.node(text) for text in args[0].split()]
    if len(ends) < 2:
        raise Wrong("ns2.bad_lan", "A LAN joins two nodes at least.")
    if len(set(map(id, ends))) < len(ends):
        raise Wrong("ns2.bad_lan", "A node is in the LAN's list more than once.")
    wire = _wire(program, "lan", "tblan-lan", ends, args[1], args[2])
    if wire.delay % 2:
        program.warn("ns2.odd_delay", f"The delay of {wire.delay} ms is odd; a member's half is no whole number of ms.")
    return wire.handle


def _make_san(program: Program, simulator: Thing, args: Sequence[str]) -> str:
    """A LAN for storage: as fast as can be."""
    _count("make-san", args, 1, 1)
    return _make_lan(program, simulator, [args[0], "~", "0"])


def _wire(program: Program, kind: str, prefix: str, ends: Sequence[Node], rate: str, delay: str) -> Wire:
    kbps, milliseconds = units.rate(rate), units.delay(delay)
    name = program.automatic_name(prefix)
    wire = Wire(program.handle(), name, kind="link" if kind == "link" else "lan", rate=kbps, delay=milliseconds)
    for node in ends:
        half = Way(milliseconds / 2, kbps)
        member = Member(node, wire, half, Way(half.delay, half.rate))
        wire.members.append(member)
        node.ports.append(member)
    return program.keep(wire)


def _queue_type(program: Program, text: str) -> QueueHandle:
    queue = _queue(program)
    if text in ("DropTail", "RED", "GRED"):
        queue.type = text  # type: ignore[assignment]
    elif text == "RED/Gentle":
        queue.type = "GRED"
    else:
        program.warn("ns2.unknown_queue", f"There is no queue type {text[:80]!r}; DropTail is used.")
    return queue


def _queue(program: Program, like: QueueHandle | None = None) -> QueueHandle:
    handle = program.handle()
    queue = QueueHandle(handle, f"queue{handle}", values=dict(QUEUE_DEFAULTS))
    if like is not None:
        queue.type = like.type
    return program.keep(queue)


def _rtproto(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("rtproto", args, 1, 99)
    if args[0] not in ROUTING:
        known = ", ".join(ROUTING)
        program.warn("ns2.unknown_routing", f"There is no routing {args[0][:80]!r}; none is used. Known: {known}.")
        program.routing = None
    else:
        program.routing = args[0]
    return ""


def _link(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("link", args, 2, 2)
    one, other = program.node(args[0]), program.node(args[1])
    for member in one.ports:
        if member.wire.kind == "link" and member.wire.member(other) is not None:
            handle = program.handle()
            return program.keep(LinkHandle(handle, f"way{handle}", queue=member.queue, wire=member.wire)).handle
    raise Wrong("ns2.unknown_object", f"There is no link between {one.name} and {other.name}.")


def _lanlink(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("lanlink", args, 2, 2)
    wire, node = program.wire(args[0], "lan"), program.node(args[1])
    member = wire.member(node)
    if member is None:
        raise Wrong("ns2.not_a_member", f"{node.name} is not on {wire.name}.")
    if member.queue is None:
        member.queue = _queue(program)
    handle = program.handle()
    return program.keep(LinkHandle(handle, f"way{handle}", queue=member.queue, wire=member.wire)).handle


def _queue_of(_program: Program, thing: Thing, args: Sequence[str]) -> str:
    _count("queue", args, 0, 0)
    assert isinstance(thing, LinkHandle)
    if thing.queue is None:
        raise Wrong("ns2.unknown_object", "This link has no queue.")
    return thing.queue.handle


def _first_queue(program: Program, thing: Thing, args: Sequence[str]) -> str:
    """`[$link queue]` of a whole link: its first direction."""
    _count("queue", args, 0, 0)
    assert isinstance(thing, Wire)
    member = thing.members[0]
    if member.queue is None:
        member.queue = _queue(program)
    return member.queue.handle


def _attach(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("attach-agent", args, 2, 2)
    agent = program.find(args[1], Passive, "agent")
    agent.node = program.node(args[0])
    return ""


def _connect(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("connect", args, 2, 2)
    one, other = (program.find(text, Passive, "agent") for text in args)
    one.options["destination"], other.options["destination"] = other.handle, one.handle
    return ""


def _at(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("at", args, 2, 2)
    time = units.seconds(args[0])
    for command in args[1].split(";"):
        if command.strip():
            program.events.append(Event(time, command.strip()))
    if len(program.events) > EVENTS_LIMIT:
        raise Wrong("ns2.too_many_events", f"A program has at most {EVENTS_LIMIT} events.")
    return ""


def _cost(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("cost", args, 3, 3)
    one, other = program.node(args[0]), program.node(args[1])
    one.extra.append((f"cost:{other.name}", args[2]))
    return ""


def _event_list(kind: str) -> Handler:
    def make(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
        handle = _passive(program, kind)
        group = program.find(handle, Passive, kind)
        group.members = [program.readable(text) for text in args]
        return handle

    return make


def _special(what: str) -> Handler:
    def make(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
        program.warn("ns2.unsupported", f"{what} needs a testbed's own hardware and is kept as a note only.")
        program.settings.append((f"ns:{what}", program.readable(" ".join(args))))
        return swallow(program)

    return make


def _role(what: str) -> Handler:
    """A node that is more than a node on a testbed with the hardware for it."""

    def make(program: Program, _simulator: Thing, _args: Sequence[str]) -> str:
        program.warn("ns2.unsupported", f"A {what} needs a testbed's own hardware; elsewhere it is an ordinary node.")
        node = program.keep(Node(program.handle(), program.automatic_name("tbnode-n")))
        node.extra.append(("ns:role", what))
        return node.handle

    return make


def _run(program: Program, _simulator: Thing, args: Sequence[str]) -> str:
    _count("run", args, 0, 0)
    if program.ran:
        raise Wrong("ns2.second_run", "A program runs once; this is the second `$ns run`.")
    program.ran = True
    program.check_names()
    return ""


# Nodes and passive objects


def _add_route(program: Program, thing: Thing, args: Sequence[str]) -> str:
    _count("add-route", args, 2, 2)
    assert isinstance(thing, Node)
    target = program.things.get(args[0]) or program.by_name.get(args[0])
    if isinstance(target, LinkHandle):
        target = target.wire
    if not isinstance(target, Node | Wire):
        raise Wrong("ns2.unknown_object", f"A route leads to a node, link or LAN; {args[0][:80]!r} is none.")
    thing.routes.append((target.name, program.node(args[1]).name))
    return ""


def _program_agent(program: Program, thing: Thing, args: Sequence[str]) -> str:
    assert isinstance(thing, Node)
    handle = _passive(program, "Program", thing)
    agent = program.find(handle, Passive, "program agent")
    agent.options = _options("program-agent", args, {"-command", "-dir", "-timeout", "-expected-exit-code"})
    return handle


def _options(what: str, args: Sequence[str], known: set[str]) -> dict[str, str]:
    if len(args) % 2 or not set(args[::2]) <= known:
        raise Wrong("ns2.wrong_arguments", f"{what} takes pairs of {', '.join(sorted(known))} and a value.")
    return {option.removeprefix("-"): value for option, value in zip(args[::2], args[1::2], strict=True)}


def _start_command(_program: Program, thing: Thing, args: Sequence[str]) -> str:
    _count("start-command", args, 1, 1)
    assert isinstance(thing, Node)
    thing.startup = args[0]
    return ""


def _node_note(what: str) -> Handler:
    def note(program: Program, thing: Thing, args: Sequence[str]) -> str:
        assert isinstance(thing, Node)
        thing.extra.append((f"ns:{what}", program.readable(" ".join(args))))
        return ""

    return note


def _attach_application(program: Program, thing: Thing, args: Sequence[str]) -> str:
    _count("attach-agent", args, 1, 1)
    assert isinstance(thing, Passive)
    agent = program.find(args[0], Passive, "agent")
    thing.node, thing.options["agent"] = agent.node, agent.handle
    return ""


def _append(program: Program, thing: Thing, args: Sequence[str]) -> str:
    assert isinstance(thing, Passive)
    thing.members += [program.readable(text) for text in args]
    return ""


_METHODS: dict[type[Thing], dict[str, Handler]] = {
    Simulator: {
        "node": _node,
        "duplex-link": _duplex_link,
        "make-lan": _make_lan,
        "make-cloud": _make_lan,
        "make-san": _make_san,
        "rtproto": _rtproto,
        "link": _link,
        "lanlink": _lanlink,
        "attach-agent": _attach,
        "connect": _connect,
        "at": _at,
        "cost": _cost,
        "event-timeline": _event_list("EventTimeline"),
        "event-sequence": _event_list("EventSequence"),
        "event-group": _event_list("EventGroup"),
        "run": _run,
        "bridge": _role("bridge"),
        "blockstore": _role("blockstore"),
        **{what: _special(what) for what in _SPECIAL},
    },
    Node: {
        "add-route": _add_route,
        "program-agent": _program_agent,
        "start-command": _start_command,
        "console": _node_note("console"),
        "add-desire": _node_note("add-desire"),
        "topography": _node_note("topography"),
    },
    LinkHandle: {"queue": _queue_of},
    Wire: {"queue": _first_queue},
    Passive: {"attach-agent": _attach_application, "append": _append, "at": _append, "add": _append},
}
