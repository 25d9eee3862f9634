"""The federation's own kit: portals that carry Ethernet, nodes with hosts files, ways and services, and the services that are installed."""

from __future__ import annotations

from fedkit.kits.contract import Kit
from fedkit.node.script import NodeConfig, node_script
from fedkit.portal.script import PortalConfig, portal_script
from fedkit.services.contract import Services
from fedkit.services.installed import installed


class Federation(Kit):
    """What an experiment gets that asks for no other."""

    name = "federation"
    delays = True
    relays = True

    def services(self) -> Services:
        """All that entry points of `fedmesh.service` name."""
        return installed()

    def portal(self, config: PortalConfig) -> str:
        """fedkit/portal."""
        return portal_script(config)

    def node(self, config: NodeConfig) -> str:
        """fedkit/node."""
        return node_script(config)

    def is_plain(self, config: NodeConfig) -> bool:
        """Parties, services and routing daemons need the script."""
        return not (config.apart or config.networks or config.settings)
