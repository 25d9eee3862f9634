"""Who may do what with an experiment: its owner everything, others what the roles allow that the experiment's own key gives.

    EXPERIMENT.operate <- PRINCIPAL             signed by the experiment's key, with an expiry: sees and operates all of it
    EXPERIMENT.party-attacker <- PRINCIPAL      sees what this party may know, and operates its nodes

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


def party_role(party: str) -> str:
    """What the role of a party's people is called."""
    return f"party-{party}"


def issue(key: PrivateKey, principal: str, expires: datetime, role: str = ROLE) -> Grant:
    """Give a principal a role in the experiment whose key this is."""
    credential = compact.issue(key, Statement(Role(key.fedid, role), (Entity(principal),)), expires)
    return Grant(principal, credential.expires, credential.raw.decode())


def proved(
    fedid: str, principal: str, roles: Iterable[str], credentials: Iterable[Credential], at: datetime
) -> frozenset[str]:
    """Which of these roles of an experiment the credentials prove, now, that the principal has."""
    prover, entity = Prover(credentials), Entity(principal)
    return frozenset(role for role in roles if isinstance(prover.prove(Role(fedid, role), entity, at), Proof))
