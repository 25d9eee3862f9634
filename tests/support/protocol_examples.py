"""The examples of `docs/protocol.md`, made by the code itself.

Keys, ids and times are fixed, and Ed25519 signatures are deterministic (RFC 8032 §5.1.6), so the same code makes the same texts.
`python -m tests.support.protocol_examples` writes them into the document, between its markers; a test compares.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedkit.identity import jws
from fedkit.identity.keys import PrivateKey
from fedkit.mesh import chunks, envelope, inbox, packs, stanzas
from fedkit.mesh.api import Peer
from fedkit.mesh.envelope import Draft
from fedkit.mesh.errors import BadSignature, RateLimited
from fedkit.mesh.outbox import Entry
from fedkit.mesh.stanzas import Reply
from fedkit.mesh.work import TOO_MUCH
from fedkit.protocol.lending import LeaseChanged, LeaseRelease, LeaseState, LeaseView

DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"
MARKER = re.compile(r"(?P<start><!-- example: (?P<name>[a-z-]+) -->\n```[a-z]*\n)(?P<text>.*?)```", re.DOTALL)

KEY_A = PrivateKey(Ed25519PrivateKey.from_private_bytes(b"\x0a" * 32))
KEY_B = PrivateKey(Ed25519PrivateKey.from_private_bytes(b"\x0b" * 32))
A = Peer(KEY_A.fedid, "fm.site-a.test")
B = Peer(KEY_B.fedid, "fm.site-b.test")
ID = "7d1c0f3e-52f5-4f6c-9a43-0d7a3f0e6b11"
OTHER = "9e4a7c10-5b0e-4d0b-8a55-3c9d2f1e7a22"
LEASE = "c4b1a9c2-0f3d-4b60-8d7e-1f2a3b4c5d6e"
NOW = 1_800_000_000.25


def request() -> str:
    """A asks B to take a machine back."""
    body = LeaseRelease(lease_id=LEASE).model_dump_json()
    draft = Draft(B, ID, (7 << 32) + 1, "lease.release", f'"body":{body}', NOW, NOW + 5, NOW - 0.125)
    return envelope.seal_request(KEY_A, A, draft)


def answer(content: str) -> str:
    """B's answer to it."""
    _, claims = envelope.open_request(request())
    return envelope.seal_answer(KEY_B, B, A, claims, NOW + 0.5, content)


def view() -> LeaseView:
    """The lease after that."""
    return LeaseView.model_validate_json(
        json.dumps({"lease_id": LEASE, "state": LeaseState.RELEASING, "revision": 4, "expires": "2027-01-15T09:00:00Z"})
    )


def pack_items() -> list[str]:
    """Two commands that travel together."""
    body = LeaseRelease(lease_id=LEASE).model_dump_json()
    one = Entry(ID, B, "lease.release", body, NOW, NOW + 60, ordered=True)
    two = Entry(OTHER, B, "lease.release", body, NOW, NOW + 60, ordered=True)
    return [packs.print_item(one, (7 << 32) + 1, None), packs.print_item(two, (7 << 32) + 2, ID)]


def pack_answers() -> bytes:
    """Their answers."""
    refused = inbox.error_content(_NotYours("This lease is another member's."))
    done = inbox.body_content(view().model_dump_json().encode())
    return packs.print_answers([(ID, (7 << 32) + 1, done), (OTHER, (7 << 32) + 2, refused)], TOO_MUCH)


def examples() -> dict[str, str]:
    """Every example by its name."""
    done = answer(inbox.body_content(view().model_dump_json().encode()))
    refused = answer(inbox.error_content(_NotYours("This lease is another member's.", lease_id=LEASE)))
    body = LeaseChanged(lease=view()).model_dump_json().encode() * 400
    digest = hashlib.sha256(body).hexdigest()
    part = chunks.chunk(body, digest, 2 * chunks.CHUNK).model_dump()
    reply = Reply("9f1c-17", A.address, B.address)
    return {
        "keys": f"{A.address}  {A.fedid}  {jws.encode(KEY_A.public.spki)}\n"
        f"{B.address}  {B.fedid}  {jws.encode(KEY_B.public.spki)}",
        "header": json.dumps(json.loads(jws.decode(request().split(".")[0])), indent=1),
        "request-claims": _claims(request()),
        "request": stanzas.iq_request("9f1c-17", "set", A.address, B.address, stanzas.request(request())),
        "answer-claims": _claims(done),
        "answer": stanzas.iq_answer(reply, done),
        "refusal-claims": _claims(refused),
        "refusal": stanzas.iq_answer(reply, refused),
        "error": stanzas.iq_error(reply, BadSignature("The signature does not verify under the key in its header.")),
        "hint": stanzas.iq_error(reply, RateLimited("More than 500 requests a second; try again in 0.25 s.", 0.25)),
        "violation": stanzas.policy_violation(reply),
        "chunk-body": json.dumps({**part, "data": part["data"][:24] + "…"}, indent=1),
        "reference": json.dumps({"ref": {"sha256": digest, "size": len(body)}}),
        "pack-body": json.dumps({"items": [json.loads(item) for item in pack_items()]}, indent=1),
        "pack-answer": json.dumps(json.loads(pack_answers()), indent=1),
        "ping": stanzas.iq_request("9f1c-18", "get", A.address, B.address, stanzas.ping()),
    }


def written() -> dict[str, str]:
    """The examples as the document has them."""
    return {match["name"]: match["text"].rstrip("\n") for match in MARKER.finditer(DOCUMENT.read_text())}


class _NotYours(BadSignature):
    code = "lease.not_yours"


def _claims(text: str) -> str:
    return json.dumps(json.loads(jws.decode(text.split(".")[1])), indent=1)


if __name__ == "__main__":
    made = examples()
    DOCUMENT.write_text(MARKER.sub(lambda match: f"{match['start']}{made[match['name']]}\n```", DOCUMENT.read_text()))
