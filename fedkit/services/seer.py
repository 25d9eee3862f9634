"""`local_seer_control` and `seer_master`: who sees all nodes, and runs commands on them (D50, D52).

    master ── LAN seer ── control (deter) ── LAN seer-deter ── a, b          a node's agent, a controller and a master speak the same
                      └── control1 (ucb) ─── LAN seer-ucb ──── c, d, e       small HTTP interface (fedkit/node/kit/control)

The LANs are the services' own, as a testbed's control network is: a link of the experiment that is down, lossy or attacked does not
hinder them, and no route leads over them. A hidden host is under no controller that a master elsewhere asks. Everybody has a key of
their own, which whoever is above them is told, too: a controller can command its nodes, the master the controllers, a node nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fedkit.services.contract import Service, Setting, Use
from fedkit.services.errors import UnusableService
from fedkit.services.events import event_settings, told_to_nodes
from fedkit.services.roles import ROLE, address_on, is_ours, with_lan, with_node, with_role
from fedkit.services.scene import Scene
from fedkit.topology.model import Computer, Topology
from fedkit.topology.views import hidden_hosts

PORT = 16505
LOCAL, MASTER = "seer-control", "seer-master"
MASTER_LAN = "seer"
KEY = "seer"
_UNUSUAL = re.compile(r"[^A-Za-z0-9]+")


class LocalSeerControl(Service):
    """Puts a node `control` into the exporter's segment, on a LAN with all its nodes."""

    name = "local_seer_control"
    exporters = (1, 256)

    def extend(self, use: Use, topology: Topology) -> Topology:
        """A node and a LAN in each exporter, once, however often the service is asked for."""
        for testbed in use.exporters:
            if not any(with_role(topology, LOCAL, [testbed])):
                topology, control = with_node(topology, "control", testbed, LOCAL)
                members = [c for c in topology.computers if c.testbed == testbed and not is_ours(c)]
                topology, _ = with_lan(topology, _lan(testbed), [control, *members])
        return topology

    def settings(self, use: Use, scene: Scene) -> Iterator[Setting]:
        """The node's children are its testbed's nodes; each runs an agent."""
        masters = [c for c in scene.topology.computers if c.get(ROLE) == MASTER]
        hidden = hidden_hosts(scene.topology)
        for control in with_role(scene.topology, LOCAL, use.exporters):
            lan = control.interfaces[0].substrates[0]
            elsewhere = any(master.testbed != control.testbed for master in masters)
            members = [
                c
                for c in scene.computers(str(control.testbed))
                if not is_ours(c) and not (elsewhere and c.name in hidden)
            ]
            yield from _serves(self.name, scene, control, lan, members)
            for member in members:
                yield from _serves(self.name, scene, member, lan, [])
                yield from told_to_nodes(member, scene.topology)
            if not masters:
                yield from event_settings(control.name, scene.topology, {str(control.testbed)})


class SeerMaster(Service):
    """Puts a node `master` into the exporter's segment, which aggregates the controllers of exporter and importers."""

    name = "seer_master"
    turn = 1

    def extend(self, use: Use, topology: Topology) -> Topology:
        """A node, and a LAN that joins it with the controllers."""
        controllers = []
        for testbed in use.testbeds:
            found = list(with_role(topology, LOCAL, [testbed]))
            if not found:
                raise UnusableService(
                    f"{self.name} aggregates local_seer_control, and {testbed} has none; add the service "
                    f"local_seer_control:{testbed}."
                )
            controllers += found
        topology, master = with_node(topology, "master", use.exporters[0], MASTER)
        return with_lan(topology, MASTER_LAN, [master, *controllers])[0]

    def settings(self, use: Use, scene: Scene) -> Iterator[Setting]:
        """The node's children are the controllers, which listen on its LAN, too."""
        for master in with_role(scene.topology, MASTER, use.exporters):
            lan = master.interfaces[0].substrates[0]
            controllers = list(with_role(scene.topology, LOCAL, use.testbeds))
            yield from _serves(self.name, scene, master, lan, controllers)
            for control in controllers:
                yield Setting(control.name, "Listen", f"{address_on(control, lan)}:{PORT}")
            yield from event_settings(master.name, scene.topology, set(use.testbeds))


def _lan(testbed: str) -> str:
    return f"seer-{_UNUSUAL.sub('-', testbed)[:48]}"


def _serves(service: str, scene: Scene, node: Computer, lan: str, children: Sequence[Computer]) -> Iterator[Setting]:
    """Who answers on a LAN, by which key, and whom there it asks in turn."""
    yield Setting(node.name, "Service", service)
    yield Setting(node.name, "Role", node.get(ROLE) or "node")
    yield Setting(node.name, "ControlKey", scene.key(f"{KEY} {node.name}"))
    yield Setting(node.name, "Listen", f"{address_on(node, lan)}:{PORT}")
    for child in children:
        place = f"{address_on(child, lan)}:{PORT}"
        yield Setting(node.name, "Child", f"{child.name} {place} {scene.key(f'{KEY} {child.name}')}")
