"""`SMB`: folders of the exporter that importers mount, by a real Samba (D53).

    deter: a  /proj/TIED is here ── smbd ◄── ControlGateway 10.1.1.2, port 445 ── b, and c, d, e of ucb: /proj/TIED is mounted

The exporter's first computer with an address holds them; the other nodes of its testbed mount them as importers do, so a path means the
same everywhere. They are reached over the experiment's own network, which the portals carry. The password is the
experiment's, and opens nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from fedkit.services.contract import NAME, NAMES, Attribute, Service, Setting, Use
from fedkit.services.errors import UnusableService
from fedkit.services.roles import is_ours
from fedkit.services.scene import Scene, account_name
from fedkit.topology.model import Computer, Topology

ALIAS = "fs"  # what Emulab calls its file server


class Smb(Service):
    """The share of a project is mounted at /proj/PROJECT, others at /share/NAME."""

    name = "SMB"
    attributes: ClassVar[Mapping[str, Attribute]] = {
        "project": Attribute("NAME", NAME, required=True),
        "shares": Attribute("NAME,NAME,…", NAMES),
    }

    def check(self, use: Use, topology: Topology) -> None:
        """Some computer must be able to serve."""
        if _server(topology, use) is None:
            raise UnusableService(f"{use.exporters[0]} has no computer with an address, so it cannot export files.")

    def settings(self, use: Use, scene: Scene) -> Iterator[Setting]:
        """The server exports, all others mount."""
        project = account_name(use.attributes["project"])
        shares = use.attributes.get("shares", project).replace(",", " ").split()
        server = _server(scene.topology, use)
        assert server is not None
        common = [("Service", self.name), ("ControlGateway", _address(server)), ("PortalAlias", ALIAS)]
        common += [
            ("ProjectName", project),
            ("ProjectUser", scene.user),
            ("SMBPassword", scene.key(f"SMB {use.exporters[0]} {project}")),
        ]
        for computer in scene.computers(*use.testbeds):
            if is_ours(computer):
                continue
            key = "SMBExport" if computer.name == server.name else "SMBShare"
            for name, value in [*common, *((key, share) for share in shares)]:
                yield Setting(computer.name, name, value)


def _server(topology: Topology, use: Use) -> Computer | None:
    here = (computer for computer in topology.computers if computer.testbed == use.exporters[0])
    return next((computer for computer in here if not is_ours(computer) and _address(computer)), None)


def _address(computer: Computer) -> str:
    return next((interface.ip4 for interface in computer.interfaces if interface.ip4), "")
