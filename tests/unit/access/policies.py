"""Members and policies that the tests of this room share."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation_member.access.policy_file import read
from federation_member.access.rules import Rules
from federation_member.access.suppose import Known
from fedkit.identity.keys import PrivateKey

# The same in every process of a run, as they stand in names of tests.
OWN, A, B, STRANGER = (PrivateKey(Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in range(4))
ACME = "ac" * 20
MEMBERS = (Known(A.fedid, "fm.site-a.test"), Known(B.fedid, "fm.site-b.edu"))
HEAD = f"""
[principals]
site-a = "{A.fedid}"
site-b = "{B.fedid}"
acme = "{ACME}"
alice = "{"a1" * 20}"
"""


def policy(text: str) -> Rules:
    """A policy in which site-a, site-b, acme and alice are known."""
    return read((HEAD + text).encode(), "policy.toml")


def rule(text: str = "", who: str = '"site-a/*/*"', name: str = "r", may: str = '"compute"') -> str:
    """One rule of a policy."""
    return f'[[rule]]\nname = "{name}"\nwho = [{who}]\nmay = [{may}]\n{text}\n'
