"""`hide_hosts`: computers of which other testbeds are not told; by default all are known everywhere (D49).

What it means for names, pictures and outputs is `fedkit.topology.views`' business; here it is only checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from fedkit.services.contract import Attribute, Service, Use
from fedkit.topology.model import Topology
from fedkit.topology.views import HIDE_HOSTS, hidden_hosts


class HideHosts(Service):
    """Has one or more testbeds as exporters, or none: then the hosts may be anywhere."""

    name = HIDE_HOSTS
    attributes: ClassVar[Mapping[str, Attribute]] = {
        "hosts": Attribute("NAME,NAME,…", re.compile(r"[A-Za-z0-9_(). ,-]{1,1024}"), required=True)
    }
    exporters = (0, 256)

    def check(self, use: Use, topology: Topology) -> None:
        """Every name has to be a computer of the exporter."""
        hidden_hosts(topology)
