"""An experiment's own keys: one that signs who may operate it, and one that its lenders' credentials are sealed to.

Its maker is given both, once, in one file. The member keeps the first, for it signs what its owner grants; of the second it keeps
the public half alone, so neither it nor whoever gets hold of its database can enter the experiment's nodes by what lenders gave.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from federation_member.experiments.model import Planned
from fedkit.identity import sealing
from fedkit.identity.keys import PrivateKey


@dataclass(frozen=True)
class ExperimentKey:
    """Both, as they are made."""

    identity: PrivateKey
    seal: X25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> ExperimentKey:
        """Make new ones."""
        return cls(PrivateKey.generate(), sealing.new_key())

    @property
    def fedid(self) -> str:
        """The experiment's."""
        return self.identity.fedid

    @property
    def seal_to(self) -> str:
        """What lenders are told to seal to."""
        return sealing.public_text(self.seal)

    @property
    def pem(self) -> bytes:
        """Two PEM blocks, unencrypted: only for whoever made the experiment."""
        return self.identity.pem + sealing.pem(self.seal)

    def sealing(self, piece: Planned) -> Planned:
        """The same piece, whose lender will seal to us."""
        return replace(piece, spec=piece.spec.model_copy(update={"seal_to": self.seal_to}))
