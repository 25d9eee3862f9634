"""What a federation kit is: the interconnection of an experiment's pieces, its nodes' programs, and its services.

    services   at the experimenter's member: which ones a description may ask for
    settings   there, too: what they say to one node, as one text, which travels with the piece
    portal     at each lender: a crossing's tags, keys and the peer's address ─► user data of the machine that is this end
    node       there, too: names, ways, start command, settings ─► user data of a node

A lender makes the machines, and tells each end of a way the public key of the other and where it waits; how frames pass between the two
is the kit's business alone. Everything is a pure function, asked again whenever it is needed; what raises an `InputError` ends the
segment with that code and reason. A new kit is a subclass of `Kit`, named by an entry point of the group `fedmesh.kit`, at the members
that use and that lend it; docs/federation-kit.md shows one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from fedkit.node.kit.conf import write
from fedkit.node.script import NodeConfig
from fedkit.portal.script import PortalConfig
from fedkit.services.contract import Services


class Kit:
    """Base of all kits."""

    name: ClassVar[str]
    delays: ClassVar[bool] = False
    """Whether its portals do what `PortalConfig.lines` says, in images that are marked for that; else nodes delay frames themselves."""
    relays: ClassVar[bool] = False
    """Whether its portals that wait can do so at `PortalConfig.relay`; else two members without tunnels cannot be joined."""

    def services(self) -> Services:
        """The services that an experiment with this kit can have, by name; by default none."""
        return {}

    def settings(self, node: str, lines: Iterable[tuple[str, str]]) -> str:
        """What services say to a node (keys and values, in order) as `NodeConfig.settings`; by default a `client.conf`.

        Raises an `InputError` for what the kit's nodes would not understand.
        """
        return write([("Name", node), *lines])

    def portal(self, config: PortalConfig) -> str:
        """The user data of a machine that is one end of a way between two pieces.

        Its interfaces but the first are on the crossings, in the order of `config.tags`. The end without a `host` waits for the other, and
        opens `config.tunnel` to where it does. Where there is a folder /run/fed-portal it may write `brief.json` there, again every few
        seconds: `{"joined": true}`, or false. One that never does so counts as joined while it runs.
        """
        raise NotImplementedError

    def node(self, config: NodeConfig) -> str:
        """The user data of a node; they may run at every boot, and again with another `config` when the experiment changes."""
        raise NotImplementedError

    def is_plain(self, config: NodeConfig) -> bool:
        """Whether a lender that itself sets names, ways and forwarding and starts the command has done all that `node` would do."""
        return False


Kits = Mapping[str, Kit]
