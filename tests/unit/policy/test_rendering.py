"""Proofs as people see them."""

from __future__ import annotations

import datetime

import pytest

from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact, rendering
from fedkit.policy.model import Credential, Entity, Role, Statement
from fedkit.policy.proof import Proof
from fedkit.policy.prover import Prover

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
ACME, BANK, COYOTE = (PrivateKey.generate() for _ in range(3))
NAMES = {ACME.fedid: "Acme", COYOTE.fedid: "Coyote"}


def say(key: PrivateKey, text: str) -> Credential:
    """A credential: `role <- tail`, with names in braces."""
    filled = text.format(acme=ACME.fedid, bank=BANK.fedid, coyote=COYOTE.fedid)
    return compact.issue(key, Statement.parse(f"{key.fedid}.{filled}"), NOW + datetime.timedelta(days=1))


@pytest.fixture
def proof() -> Proof:
    """Coyote buys: a customer of Acme's whom the bank calls solvent."""
    said = [
        say(ACME, "buy <- {acme}.customer & {bank}.solvent"),
        say(ACME, "customer <- {coyote}"),
        say(BANK, "solvent <- {coyote}"),
    ]
    answer = Prover(said).prove(Role(ACME.fedid, "buy"), Entity(COYOTE.fedid), NOW)
    assert isinstance(answer, Proof)
    return answer


def test_text_numbers_the_steps_and_tells_who_is_who(proof: Proof) -> None:
    lines = rendering.proof_text(proof.as_json(), NAMES).splitlines()
    acme, coyote = f"Acme:{ACME.fedid[:8]}", f"Coyote:{COYOTE.fedid[:8]}"
    assert lines[4] == f"  3. {coyote} has {acme}.buy"
    assert lines[5] == f"     by {acme}.buy <- {acme}.customer & {BANK.fedid}.solvent, and 1, 2"
    assert set(lines[6:]) == {f"{acme} is {ACME.fedid}", f"{coyote} is {COYOTE.fedid}"}


def test_a_name_that_looks_like_a_statement_does_not_lie(proof: Proof) -> None:
    names = {COYOTE.fedid: "Acme.buy <- x\n\x1b[31m\u202e" + "y" * 100}
    text = rendering.proof_text(proof.as_json(), names)
    shown = text.splitlines()[-1].split(":")[0]
    assert shown.startswith("Acme_buy__-_x___31m_y")
    assert len(shown) == 32


def test_mermaid_escapes_what_it_would_take_for_markup(proof: Proof) -> None:
    drawing = rendering.proof_mermaid(proof.as_json(), NAMES).splitlines()
    assert drawing[0] == "flowchart TD"
    assert sum(" --> s2" in line for line in drawing) == 2
    labels = [line.split('["', 1)[1].removesuffix('"]') for line in drawing if '["' in line]
    assert len(labels) == 3
    for label in labels:
        text = label.replace("<br/>", "").replace("<i>", "").replace("</i>", "")
        assert not set(text) & set('<>"&')


def test_a_long_proof_is_drawn_from_its_end() -> None:
    steps = [
        {"role": f"{ACME.fedid}.r{n}", "subject": COYOTE.fedid, "statement": "x", "because": [n - 1] if n else []}
        for n in range(1000)
    ]
    drawing = rendering.proof_mermaid(steps, {})
    assert drawing.count("has") == rendering.DRAWN_LIMIT
    assert f"{ACME.fedid}.r999" in drawing
    assert rendering.proof_text(steps, {}).count(" has ") == 1000


def test_what_is_missing() -> None:
    missing = [[f"{ACME.fedid}.customer <- {COYOTE.fedid}"], ["a", "b"]]
    text = rendering.missing_text(missing, NAMES)
    assert f"   1. Acme:{ACME.fedid[:8]}.customer <- Coyote:{COYOTE.fedid[:8]}" in text
    assert "   2. a\n    + b" in text
    assert rendering.missing_mermaid(missing, NAMES).count(":::missing") == 2
    assert (
        rendering.missing_text([], NAMES) == "No credential that anybody named here could issue would complete a proof."
    )
