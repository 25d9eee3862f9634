"""The services of an experiment, carried out for its owner.

All that is secret in them (passwords of shares, the key of the control network) follows from the experiment's own key, so it is the same
whenever the experiment is looked at anew, and nobody else can tell it. Accounts are the owner's: a member knows nobody else's ssh keys.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from fedkit.identity.keys import PrivateKey
from fedkit.kits.contract import Kit
from fedkit.services.arrange import Arranged, arrange
from fedkit.services.scene import Project, account_name, project
from fedkit.topology.model import Topology

PURPOSE = b"fedmesh experiment services 1"
NOBODYS = "of a preview, which nobody runs"


def serve(topology: Topology, kit: Kit, owner: str, ssh_keys: Sequence[str], secret: str) -> Arranged:
    """What a topology comes to with its services; raises `UnknownService`, `UnusableService` or what else a service refuses with."""

    def project_of(name: str) -> Project:
        return project(name, {owner: ssh_keys})

    if not topology.services:
        return Arranged(topology)
    return arrange(topology, kit.services(), secret=secret, user=account_name(owner), project_of=project_of)


def secret_of(key: PrivateKey) -> str:
    """What everything secret of an experiment's services follows from."""
    return hmac.new(key.pem, PURPOSE, hashlib.sha256).hexdigest()
