"""Who may operate an experiment: its owner, and whoever proves the role that the experiment's own key gives.

    EXPERIMENT.operate <- PRINCIPAL         signed by the experiment's key, with an expiry

The experiment is a principal like any other: its fedid is that of its key, so nobody needs to know this member to check what it says.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from federation_member.experiments.model import Grant
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.policy.proof import Proof
from fedkit.policy.prover import Prover

ROLE = "operate"


def issue(key: PrivateKey, principal: str, expires: datetime) -> Grant:
    """Let a principal operate the experiment whose key this is."""
    credential = compact.issue(key, Statement(Role(key.fedid, ROLE), (Entity(principal),)), expires)
    return Grant(principal, credential.expires, credential.raw.decode())


def may_operate(fedid: str, principal: str, credentials: Iterable[Credential], at: datetime) -> bool:
    """Tell whether these credentials prove, now, that the principal may operate the experiment."""
    return isinstance(Prover(credentials).prove(Role(fedid, ROLE), Entity(principal), at), Proof)
