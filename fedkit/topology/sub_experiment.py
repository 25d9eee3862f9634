"""Writes a piece of a split as a description of its own, as fedd gave it to an Emulab: with connectors, kit and start commands.

    piece of deter: a, b, a way to ucb      a, b with the federation kit, its start command and then their own
                                    ──►     control           in the master's piece alone, for SEER
                                            ucbtunnel0        stands for c: has c's address on link1, carries its frames to ucb

Source: the seed's worked example (D37 to D47), without its slips: every node has a failure action, no node is made up,
paths have single slashes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from fedkit.topology.model import (
    Attribute,
    Computer,
    Interface,
    OperatingSystem,
    Software,
    Substrate,
    Topology,
)
from fedkit.topology.split import Connector, Crossing, Piece, Split

GATEWAY = "federation:gateway"  # attribute of a connector: the testbed that it leads to
KIT = "/usr/local/federation"
CONTROL = "control"


@dataclass(frozen=True)
class Manner:
    """What the pieces are written for: the experiment's name at its testbeds, their projects, and what portals are made of."""

    experiment: str = "experiment"
    projects: Mapping[str, str] = field(default_factory=dict)  # by testbed; others use `project`
    project: str = "federation"
    master: str | None = None  # the testbed that exports; none: of project_export, else the first
    portal_hardware: str = "pc3000_tunnel"
    portal_os: str = "FBSD7-TVF"


def sub_experiments(done: Split, manner: Manner) -> dict[str, Topology]:
    """The description of each piece, by testbed."""
    master = manner.master or _exporter(done) or (done.pieces[0].testbed if done.pieces else "")
    return {piece.testbed: _sub_experiment(piece, manner, is_master=piece.testbed == master) for piece in done.pieces}


def _exporter(done: Split) -> str | None:
    services = done.pieces[0].topology.services if done.pieces else ()
    exporters = [name for service in services if service.name == "project_export" for name in service.exporters]
    testbeds = {piece.testbed for piece in done.pieces}
    return next((name for name in exporters if name in testbeds), None)


def _sub_experiment(piece: Piece, manner: Manner, *, is_master: bool) -> Topology:
    project = manner.projects.get(piece.testbed.partition("/")[0], manner.project)
    place = _Place(
        f"/proj/{project}/exp/{manner.experiment}", f"/proj/{project}/tarfiles/{manner.experiment}/fedkit.tgz"
    )
    computers = [_with_kit(computer, place, is_master=is_master) for computer in piece.topology.computers]
    if is_master:
        computers.append(_with_kit(_control(computers), place, is_master=True))
    computers += [_portal(connector, piece, manner, place) for connector in piece.connectors]
    routing = "Session" if piece.topology.routing == "Static" else piece.topology.routing
    return replace(piece.topology, elements=tuple(computers), services=(), routing=routing)


@dataclass(frozen=True)
class _Place:
    """Where an experiment's files are at a testbed."""

    folder: str
    kit: str


def _with_kit(computer: Computer, place: _Place, *, is_master: bool) -> Computer:
    """The kit comes first, then its start command, then the user's own."""
    make_hosts = f"{KIT}/bin/make_hosts {place.folder}/tmp/hosts >& /tmp/federate"  # noqa: S108  the seed's paths, at testbeds
    federate = f"/bin/sh {KIT}/bin/federate.sh >& /tmp/startup"
    command = f"sudo -H {make_hosts if is_master else federate} $USER {computer.startup or ''}".rstrip()
    changed = computer.with_attributes({"startup": command, "failureaction": computer.failure_action})
    return replace(changed, software=(Software(place.kit, "/usr"), *computer.software))


def _control(others: list[Computer]) -> Computer:
    """SEER's control node: like the first node of its piece, on no wire."""
    taken = {computer.name for computer in others}
    name = next(name for number in range(len(taken) + 1) if (name := f"{CONTROL}{number or ''}") not in taken)
    model = others[0] if others else Computer(name=name)
    attributes = tuple(a for a in model.attributes if a.name in ("type", "testbed"))
    return Computer(name=name, os=model.os, attributes=attributes)


def _portal(connector: Connector, piece: Piece, manner: Manner, place: _Place) -> Computer:
    command = f"sudo -H {KIT}/bin/fed-tun.pl -f {place.folder}/tmp/`hostname`.gw.conf >& /tmp/bridge.log"  # noqa: S108
    substrates = {substrate.name: substrate for substrate in piece.topology.substrates}
    attributes = {
        "type": manner.portal_hardware,
        "testbed": piece.testbed,
        "startup": command,
        "failureaction": "fatal",
        GATEWAY: connector.peer,
    }
    return Computer(
        name=connector.name,
        interfaces=tuple(
            _end(number, crossing, substrates[crossing.substrate], piece.topology)
            for number, crossing in enumerate(connector.crossings)
        ),
        os=(OperatingSystem(attributes=(Attribute("osid", manner.portal_os),)),),
        software=(Software(place.kit, "/usr"),),
        attributes=tuple(Attribute(name, value) for name, value in attributes.items()),
    )


def _end(number: int, crossing: Crossing, substrate: Substrate, topology: Topology) -> Interface:
    """An end that stands for all that is beyond: it has the first one's address, and the others' as aliases."""
    return Interface(
        f"inf{number:03d}",
        (crossing.substrate,),
        capacity=substrate.capacity,
        latency=substrate.latency,
        attributes=tuple(_addresses(crossing, topology)),
    )


def _addresses(crossing: Crossing, topology: Topology) -> Iterator[Attribute]:
    netmask = next((i.netmask for _, i in topology.ends[crossing.substrate] if i.netmask), None)
    for number, address in enumerate(crossing.ip4):
        yield Attribute("ip4_alias" if number else "ip4_address", address)
    if crossing.ip4 and netmask is not None:
        yield Attribute("ip4_netmask", netmask)
