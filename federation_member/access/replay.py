"""Makes the decisions of the audit log again from what the log kept: the same entry gives the same answer.

So an auditor can check that each decision followed from the policy, the members and the revocations of its time. What this member
itself says by its policy is not kept: it follows from the policy's text and the list of members, and both are. (Another
policy is tried on the log by simulate.py.)
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from federation_member.access import audit
from federation_member.access.audit import Entry, Kind
from federation_member.access.compile import statements
from federation_member.access.errors import IncompleteLog
from federation_member.access.grants import action_of
from federation_member.access.policy_file import read
from federation_member.access.suppose import supposed
from federation_member.access.verdict import Applicant, Verdict, judge
from federation_member.access.world import BUDGET, members_of
from fedkit.identity.keys import PublicKey
from fedkit.identity.names import Name
from fedkit.mesh.api import Peer
from fedkit.policy import compact, revocation
from fedkit.policy.prover import Prover
from fedkit.policy.revocation import RevocationList


def differing(conn: Connection, own: PublicKey) -> Iterator[int]:
    """The numbers of the entries whose decision the member `own` would not make again; raises `IncompleteLog`."""
    revoked: list[RevocationList] = []
    for entry in audit.entries(conn):
        if entry.kind is Kind.REVOCATION:
            revoked.append(revocation.read(text_of(conn, entry.said["list"])))
        elif entry.kind is Kind.DECISION and not same_answer(entry, replay(conn, entry, own, revoked)):
            yield entry.sequence


def replay(conn: Connection, entry: Entry, own: PublicKey, revoked: list[RevocationList]) -> Verdict:
    """Decide again what `entry` tells of; `revoked` are the lists that had been taken in before."""
    said = entry.said
    rules = read(text_of(conn, said["policy"]).encode(), f"the policy of entry {entry.sequence}")
    members = members_of(text_of(conn, said["members"]))
    prover = Prover((supposed(statement, own) for statement in statements(rules, own.fedid, members)), BUDGET)
    for listing in revoked:
        prover.revoke(listing)
    held: dict[str, int] = said["held"]
    at = datetime.fromisoformat(said["at"])
    who = applicant_of(conn, said)
    return judge(rules, prover, own.fedid, who, action_of(said["action"]), at, lambda rule: held.get(rule.name, 0))


def same_answer(entry: Entry, verdict: Verdict) -> bool:
    """Tell whether the verdict says what the entry says: by which rule and because of what, or why not and what is missing."""
    said, again = entry.said, verdict.as_json()
    if said["allowed"]:
        return again["allowed"] and (said["rule"], _grounds(said)) == (again["rule"], _grounds(again))
    if said.get("lacks") == "account":  # the rule would have lent it; what its account came to is not decided again
        return bool(again["allowed"])
    return not again["allowed"] and (said["reason"], said["missing"]) == (again["reason"], again["missing"])


def _grounds(said: dict[str, Any]) -> list[set[str]]:
    return [{step["statement"] for step in proof} for proof in said["proofs"]]


def applicant_of(conn: Connection, said: dict[str, Any]) -> Applicant:
    """Who asked, with the credentials that came along; raises `IncompleteLog`."""
    who = said["applicant"]
    sent = tuple(compact.read(text_of(conn, name)) for name in said["credentials"])
    return Applicant(Peer(who["member"], who["address"]), Name.parse(who["name"]), who["principal"], sent)


def text_of(conn: Connection, name: str) -> str:
    """A text that an entry names; raises `IncompleteLog`."""
    text = audit.text_of(conn, name)
    if text is None:
        raise IncompleteLog(f"The audit log names the text {name}, which is gone; `fed audit verify` tells more.")
    return text
