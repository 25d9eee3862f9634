"""The `tb-*` commands. Those that change nodes, links, addresses or software are carried out; the others are kept and passed on.

Order matters as it does in Emulab: `tb-set-ip-link` needs the link, `tb-set-netmask` comes before addresses are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from fedkit.topology import addresses
from fedkit.topology.ns2 import units
from fedkit.topology.ns2.objects import Member, Node, Way, Wire
from fedkit.topology.ns2.program import Program, Wrong

Command = Callable[[Program, Sequence[str]], None]

FAILURE_ACTIONS = ("fatal", "nonfatal", "ignore")
SECURITY_LEVELS = ("Green", "Blue", "Yellow", "Orange", "Red")
_TESTBED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?\Z")
_TARFILE = re.compile(r".+\.(tar|tar\.Z|tar\.gz|tgz|tar\.bz2)\Z")
_SCHEMES = ("http", "https", "ftp")
_SHARED = ("/users", "/proj", "/groups", "/share")  # over NFS: nothing is unpacked there
_COMMANDS: dict[str, Command] = {}

# Not ours to carry out: what their first argument means is all that is known of them.
_OF_NODES = (
    "tb-set-node-loadlist",
    "tb-set-node-cmdline",
    "tb-set-node-id",
    "tb-set-node-inner-elab-role",
    "tb-set-node-lan-backfill",
    "tb-set-node-lan-est-bandwidth",
    "tb-set-node-plab-plcnet",
    "tb-set-node-plab-role",
    "tb-set-fw-style",
    "tb-fix-interface",
    "tb-bind-parent",
    "tb-set-node-usesharednode",
    "tb-set-node-sharingmode",
    "tb-set-node-routable-ip",
    "tb-set-node-memory-size",
    "tb-add-node-os",
    "tb-add-node-cpu",
    "tb-add-node-storage",
    "tb-allow-external",
    "tb-request-ip-alias-lan",
    "tb-request-ip-alias-link",
)
_OF_WIRES = (
    "tb-set-link-simplex-backfill",
    "tb-set-lan-accesspoint",
    "tb-set-lan-backfill",
    "tb-set-lan-est-bandwidth",
    "tb-set-lan-simplex-backfill",
    "tb-set-node-lan-setting",
    "tb-set-link-protocol",
    "tb-set-link-layer",
    "tb-set-link-encap",
    "tb-set-lan-protocol",
    "tb-set-lan-setting",
    "tb-set-multiplexed",
    "tb-set-noshaping",
    "tb-set-useveth",
    "tb-set-endnodeshaping",
    "tb-set-allowcolocate",
    "tb-set-switch-fabric",
)
_OF_EITHER = ("tb-set-link-est-bandwidth", "tb-set-link-backfill")  # a link, or the node at one end and then the other
_OF_THE_EXPERIMENT = (
    "tb-set-node-service",
    "tb-add-node-service-hook",
    "tb-use-ipassign",
    "tb-set-ipassign-args",
    "tb-make-soft-vtype",
    "tb-make-hard-vtype",
    "tb-make-weighted-vtype",
    "tb-set-sync-server",
    "tb-set-colocate-factor",
    "tb-set-packing-strategy",
    "tb-set-encapsulate",
    "tb-set-vlink-emulation",
    "tb-set-jail-os",
    "tb-set-sim-os",
    "tb-set-delay-os",
    "tb-set-delay-capacity",
    "tb-use-endnodeshaping",
    "tb-force-endnodeshaping",
    "tb-use-physnaming",
    "tb-elab-in-elab",
    "tb-elab-in-elab-topology",
    "tb-elabinelab-singlenet",
    "tb-set-elabinelab-attribute",
    "tb-set-elabinelab-cvstag",
    "tb-set-elabinelab-fw-type",
    "tb-set-elabinelab-role-attribute",
    "tb-set-inner-elab-eid",
    "tb-unset-elabinelab-attribute",
    "tb-unset-elabinelab-role-attribute",
    "tb-feedback-vlan",
    "tb-feedback-vlink",
    "tb-feedback-vnode",
    "tb-fix-current-resources",
    "tb-set-nonfs",
    "tb-set-dpdb",
    "tb-set-tarfiles",
    "tb-set-uselatestwadata",
    "tb-set-usewatunnels",
    "tb-set-wasolver-weights",
)
_ARGUMENTS_LIMIT = 64 * 1024  # characters of one command that is passed on


def call(program: Program, name: str, args: Sequence[str]) -> None:
    """Carry out one command; raises `Wrong` or `units.BadUnit` or `addresses.BadAddress`."""
    command = _COMMANDS.get(name)
    if command is not None:
        command(program, args)
        return
    text = program.readable(" ".join(args))
    if len(text) > _ARGUMENTS_LIMIT:
        raise Wrong("ns2.too_large", f"{name} has arguments of more than {_ARGUMENTS_LIMIT} characters.")
    first = args[0] if args else ""
    if name in _OF_NODES or (name in _OF_EITHER and program.is_node(first)):
        node = program.node(first)
        node.extra.append((name, program.readable(" ".join(args[1:]))))
    elif name in _OF_WIRES or name in _OF_EITHER:
        wire = program.wire(first)
        wire.extra.append((name, program.readable(" ".join(args[1:]))))
    else:
        program.settings.append((name, text))


def _command(name: str, least: int, most: int | None = None) -> Callable[[Command], Command]:
    """Register a command that takes so many arguments."""

    def register(function: Command) -> Command:
        def checked(program: Program, args: Sequence[str]) -> None:
            high = least if most is None else most
            if not least <= len(args) <= high:
                wanted = str(least) if least == high else f"{least} to {high}"
                raise Wrong("ns2.wrong_arguments", f"{name} takes {wanted} arguments; {len(args)} are given.")
            function(program, args)

        _COMMANDS[name] = checked
        return function

    return register


def _member(program: Program, wire: Wire, node: Node) -> Member:
    member = wire.member(node)
    if member is None:
        raise Wrong("ns2.not_a_member", f"{node.name} is not on {wire.name}.")
    return member


# Addresses


def _set_ip(member: Member, text: str) -> None:
    addresses.check_host(text, member.wire.netmask)
    member.ip = text


@_command("tb-set-ip", 2)
def _tb_set_ip(program: Program, args: Sequence[str]) -> None:
    node = program.node(args[0])
    if len(node.ports) != 1:
        raise Wrong(
            "ns2.ambiguous",
            f"{node.name} has {len(node.ports)} links; tb-set-ip needs exactly one: use tb-set-ip-link or tb-set-ip-lan.",
        )
    _set_ip(node.ports[0], args[1])


@_command("tb-set-ip-interface", 3)
def _tb_set_ip_interface(program: Program, args: Sequence[str]) -> None:
    one, other = program.node(args[0]), program.node(args[1])
    between = [member for member in one.ports if member.wire.member(other) is not None and one is not other]
    if not between:
        raise Wrong("ns2.not_a_member", f"Nothing joins {one.name} and {other.name}.")
    _set_ip(between[-1], args[2])


@_command("tb-set-ip-link", 3)
def _tb_set_ip_link(program: Program, args: Sequence[str]) -> None:
    _set_ip(_member(program, program.wire(args[1], "link"), program.node(args[0])), args[2])


@_command("tb-set-ip-lan", 3)
def _tb_set_ip_lan(program: Program, args: Sequence[str]) -> None:
    _set_ip(_member(program, program.wire(args[1], "lan"), program.node(args[0])), args[2])


def _add_alias(kind: str) -> Command:
    def add(program: Program, args: Sequence[str]) -> None:
        member = _member(program, program.wire(args[1], kind), program.node(args[0]))
        addresses.check_host(args[2], member.wire.netmask)
        member.aliases.append(args[2])

    return add


_command("tb-add-ip-alias-link", 3)(_add_alias("link"))
_command("tb-add-ip-alias-lan", 3)(_add_alias("lan"))


@_command("tb-set-netmask", 2)
def _tb_set_netmask(program: Program, args: Sequence[str]) -> None:
    addresses.parse_netmask(args[1])
    program.wire(args[0]).netmask = args[1]


# Nodes


@_command("tb-set-hardware", 2, 99)
def _tb_set_hardware(program: Program, args: Sequence[str]) -> None:
    program.node(args[0]).hardware = args[1]


@_command("tb-set-node-os", 2, 3)
def _tb_set_node_os(program: Program, args: Sequence[str]) -> None:
    node = program.node(args[0])
    node.os = args[1]
    if len(args) == 3:
        node.extra.append(("tb-set-node-os-parent", args[2]))


@_command("tb-set-node-testbed", 2)
def _tb_set_node_testbed(program: Program, args: Sequence[str]) -> None:
    if not _TESTBED.match(args[1]) or len(args[1]) > 255:
        raise Wrong("ns2.bad_testbed", f"A testbed is name or name/subname; {args[1][:80]!r} is not.")
    program.node(args[0]).testbed = args[1]


@_command("tb-set-node-startcmd", 2)
def _tb_set_node_startcmd(program: Program, args: Sequence[str]) -> None:
    program.node(args[0]).startup = args[1]


_command("tb-set-node-startup", 2)(_tb_set_node_startcmd)  # the old spelling


def _failure_action(text: str, allowed: Sequence[str] = FAILURE_ACTIONS) -> str:
    if text not in allowed:
        raise Wrong("ns2.bad_failure_action", f"A failure action is {', '.join(allowed)}; {text[:80]!r} is none.")
    return text


@_command("tb-set-node-failure-action", 2)
def _tb_set_node_failure_action(program: Program, args: Sequence[str]) -> None:
    program.node(args[0]).failure_action = _failure_action(args[1])


@_command("tb-set-default-failure-action", 1)
def _tb_set_default_failure_action(program: Program, args: Sequence[str]) -> None:
    program.failure_action = _failure_action(args[0])


@_command("tb-set-link-failure-action", 2)
def _tb_set_link_failure_action(program: Program, args: Sequence[str]) -> None:
    program.wire(args[0]).extra.append(("failureaction", _failure_action(args[1], FAILURE_ACTIONS[:2])))


@_command("tb-fix-node", 2)
def _tb_fix_node(program: Program, args: Sequence[str]) -> None:
    program.node(args[0]).fixed = args[1]


@_command("tb-add-node-attribute", 3)
def _tb_add_node_attribute(program: Program, args: Sequence[str]) -> None:
    program.node(args[0]).extra.append((args[1], args[2]))


@_command("tb-set-node-rpms", 2, 1000)
def _tb_set_node_rpms(program: Program, args: Sequence[str]) -> None:
    program.node(args[0]).rpms = [rpm for text in args[1:] for rpm in text.split()]


@_command("tb-set-node-tarfiles", 2, 1000)
def _tb_set_node_tarfiles(program: Program, args: Sequence[str]) -> None:
    node = program.node(args[0])
    rest = args[1].split() if len(args) == 2 else list(args[1:])
    if len(rest) % 2:
        raise Wrong("ns2.bad_tarfile", "tb-set-node-tarfiles takes pairs of a directory and a tar file.")
    pairs = list(zip(rest[::2], rest[1::2], strict=True))
    for directory, file in pairs:
        if not directory.startswith("/"):
            raise Wrong("ns2.bad_tarfile", f"The directory {directory[:80]!r} is not absolute.")
        if any(directory == shared or directory.startswith(f"{shared}/") for shared in _SHARED):
            raise Wrong(
                "ns2.bad_tarfile", f"{directory[:80]!r} is on a shared file system; unpack to the node's own disk."
            )
        if not _TARFILE.match(file):
            raise Wrong("ns2.bad_tarfile", f"{file[:80]!r} is no tar file: .tar, .tar.Z, .tar.gz, .tgz or .tar.bz2.")
        scheme, separator, _rest = file.partition("://")
        if separator and scheme not in _SCHEMES:
            raise Wrong("ns2.bad_tarfile", f"A tar file is fetched by {', '.join(_SCHEMES)}; {file[:80]!r} is not.")
    node.tarfiles = pairs


@_command("tb-set-ip-routing", 1)
def _tb_set_ip_routing(program: Program, args: Sequence[str]) -> None:
    if args[0] not in ("none", "ospf"):
        raise Wrong("ns2.bad_value", f"tb-set-ip-routing takes none or ospf; {args[0][:80]!r} is neither.")
    program.routing = None if args[0] == "none" else args[0]


def _usage(name: str) -> Command:
    def usage(program: Program, args: Sequence[str]) -> None:
        if args[0] not in ("1", "2", "3", "4", "5"):
            raise Wrong("ns2.bad_value", f"{name} takes 1 to 5; {args[0][:80]!r} is not.")
        program.settings.append((name, args[0]))

    return usage


_command("tb-set-cpu-usage", 1)(_usage("tb-set-cpu-usage"))
_command("tb-set-mem-usage", 1)(_usage("tb-set-mem-usage"))


@_command("tb-set-security-level", 1)
def _tb_set_security_level(program: Program, args: Sequence[str]) -> None:
    if args[0] not in SECURITY_LEVELS:
        raise Wrong("ns2.bad_value", f"A security level is {', '.join(SECURITY_LEVELS)}; {args[0][:80]!r} is none.")
    program.settings.append(("tb-set-security-level", args[0]))


# Loss, delay and rate


@_command("tb-set-link-loss", 2, 3)
def _tb_set_link_loss(program: Program, args: Sequence[str]) -> None:
    if len(args) == 3:
        one, other = program.node(args[0]), program.node(args[1])
        wires = [m.wire for m in one.ports if m.wire.kind == "link" and m.wire.member(other) is not None]
        if not wires:
            raise Wrong("ns2.not_a_member", f"There is no link between {one.name} and {other.name}.")
        wire = wires[-1]
    else:
        wire = program.wire(args[0])
    _spread_loss(wire, units.loss(args[-1]))


@_command("tb-set-lan-loss", 2)
def _tb_set_lan_loss(program: Program, args: Sequence[str]) -> None:
    _spread_loss(program.wire(args[0], "lan"), units.loss(args[1]))


def _spread_loss(wire: Wire, loss: float) -> None:
    for member in wire.members:
        member.to.loss = member.back.loss = units.one_way(loss)


@_command("tb-set-link-simplex-params", 5)
def _tb_set_link_simplex_params(program: Program, args: Sequence[str]) -> None:
    wire, source = program.wire(args[0], "link"), program.node(args[1])
    here = _member(program, wire, source)
    there = next(member for member in wire.members if member is not here)
    half = Way(units.delay(args[2]) / 2, units.rate(args[3]), units.one_way(units.loss(args[4])))
    here.to, there.back = half, Way(half.delay, half.rate, half.loss)


@_command("tb-set-lan-simplex-params", 8)
def _tb_set_lan_simplex_params(program: Program, args: Sequence[str]) -> None:
    member = _member(program, program.wire(args[0], "lan"), program.node(args[1]))
    member.to = Way(units.delay(args[2]), units.rate(args[3]), units.loss(args[4]))
    member.back = Way(units.delay(args[5]), units.rate(args[6]), units.loss(args[7]))


@_command("tb-set-node-lan-delay", 3)
def _tb_set_node_lan_delay(program: Program, args: Sequence[str]) -> None:
    member = _member(program, program.wire(args[1], "lan"), program.node(args[0]))
    member.to.delay = member.back.delay = units.delay(args[2])


@_command("tb-set-node-lan-bandwidth", 3)
def _tb_set_node_lan_bandwidth(program: Program, args: Sequence[str]) -> None:
    member = _member(program, program.wire(args[1], "lan"), program.node(args[0]))
    member.to.rate = member.back.rate = units.rate(args[2])


@_command("tb-set-node-lan-loss", 3)
def _tb_set_node_lan_loss(program: Program, args: Sequence[str]) -> None:
    member = _member(program, program.wire(args[1], "lan"), program.node(args[0]))
    member.to.loss = member.back.loss = units.loss(args[2])


@_command("tb-set-node-lan-params", 5)
def _tb_set_node_lan_params(program: Program, args: Sequence[str]) -> None:
    member = _member(program, program.wire(args[1], "lan"), program.node(args[0]))
    delay, rate, loss = units.delay(args[2]), units.rate(args[3]), units.loss(args[4])
    member.to, member.back = Way(delay, rate, loss), Way(delay, rate, loss)


# Every command there is; the decorators above have filled the table.
NAMES = frozenset((*_COMMANDS, *_OF_NODES, *_OF_WIRES, *_OF_EITHER, *_OF_THE_EXPERIMENT))
