"""Laws of the picture of a proof, on proofs that the prover finds among random credentials; the drawing runs in a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedkit.policy.model import Credential, Entity
from fedkit.policy.proof import Proof
from fedkit.policy.prover import Prover
from tests.component.web.conftest import Site
from tests.support.browser import Browser, installed, open_browser
from tests.unit.policy.oracle import memberships
from tests.unit.policy.said import FEDIDS, NOW, credentials, letters
from tests.unit.policy.test_laws import sets

pytestmark = pytest.mark.skipif(not installed(), reason="needs chromium and chromedriver")

Steps = list[dict[str, Any]]

LAWS = """
  return import("./graph.js").then(({ graphOf, holdTogether, BOX }) => arguments[0].flatMap((proofs, index) => {
    if (!holdTogether(proofs)) return [`${index}: it does not hold together`];
    const graph = graphOf(proofs);
    const boxes = [...graph.boxes.values()];
    const wrong = [];
    const claims = new Map(proofs.flat().map((step) => [`${step.role} | ${step.subject}`, step]));
    for (const { from, to } of graph.arrows) {
      if (from.y <= to.y) wrong.push(`an arrow from ${from.text} to ${to.text} does not go up`);
    }
    for (const row of Map.groupBy(boxes, (box) => box.y).values()) {
      row.sort((a, b) => a.x - b.x);
      for (let i = 1; i < row.length; i++) if (row[i].x - row[i - 1].x < BOX.width) wrong.push(`${row[i].text} is covered`);
    }
    for (const box of boxes) {
      const by = graph.arrows.filter((arrow) => arrow.to === box && arrow.number);
      if (by.length > 1) wrong.push(`${box.text} is carried twice`);
      if (claims.has(`${box.text} | ${box.subject}`) && by.length !== 1) wrong.push(`${box.text} hangs in the air`);
      if (!box.goal && !graph.arrows.some((arrow) => arrow.from === box)) wrong.push(`${box.text} carries nothing`);
      if (box.x < BOX.width / 2 || box.x > graph.width - BOX.width / 2) wrong.push(`${box.text} is outside`);
    }
    const goal = proofs.at(-1).at(-1);
    const top = boxes.filter((box) => box.y === Math.min(...boxes.map((other) => other.y)));
    const below = graph.arrows.some(({ from }) => from.text === goal.role && from.subject === goal.subject);
    if (!below && !top.some((box) => box.goal && box.text === goal.role)) wrong.push(`the goal ${goal.role} is not on top`);
    const used = new Set(proofs.flat().map((step) => step.credential));
    if (!graph.credentials.every((step) => used.has(step.credential))) wrong.push("a credential comes from nowhere");
    if (proofs.length === 1 && graph.credentials.length !== used.size) wrong.push("a credential is not drawn");
    return wrong.map((text) => `${index}: ${text}`);
  }));
"""


@pytest.fixture
async def browser(site: Site) -> AsyncIterator[Browser]:
    async with open_browser() as opened:
        await opened.open(site.url)
        yield opened


def _random_proofs() -> list[list[Steps]]:
    """Some proofs of each of many sets of credentials; those of one set are drawn together."""
    found: list[list[Steps]] = []

    @settings(max_examples=150, deadline=None, database=None)
    @given(sets, st.integers(1, 4))
    def collect(known: list[Credential], several: int) -> None:
        prover = Prover(known)
        answers = [
            prover.prove(role, subject, NOW)
            for role, subject in sorted(memberships(known, NOW), key=str)
            if isinstance(subject, Entity) or several == 1
        ]
        proofs = [answer.as_json() for answer in answers if isinstance(answer, Proof) and answer.steps]
        found.extend(proofs[i : i + several] for i in range(0, len(proofs), several))

    collect()
    return found


async def test_every_proof_is_drawn_upwards_from_principals_to_its_goal(browser: Browser) -> None:
    proofs = _random_proofs()
    assert len(proofs) > 50
    wrong = await browser.run(LAWS, proofs)
    assert wrong == [], letters(proofs[int(wrong[0].partition(":")[0])])


async def test_a_very_long_chain_is_drawn_to_its_last_200_steps_and_this_is_said(browser: Browser) -> None:
    chain = "\n".join(f"A.r{index} <- A.r{index + 1}" for index in range(1000)) + "\nA.r1000 <- U"
    proof = Prover(credentials(chain)).prove(credentials("A.r0 <- U")[0].statement.head, Entity(FEDIDS["U"]), NOW)
    assert isinstance(proof, Proof)
    script = """
      return import("./proof.js").then(({ proofShown }) => {
        document.body.replaceChildren(...proofShown(arguments[0], {}));
        return [document.querySelectorAll(".box").length, document.querySelector(".reason").textContent];
      });
    """
    drawn, said = await browser.run(script, [proof.as_json()])
    assert drawn == 201
    assert "801 more steps" in said


async def test_two_proofs_of_one_thing_are_no_circle(browser: Browser) -> None:
    known = credentials("A.p <- B.q\nB.q <- U\nB.q <- A.p\nA.p <- U")
    a, b, c, d = known
    steps = [Prover(some).prove(some[0].statement.head, Entity(FEDIDS["U"]), NOW) for some in ([a, b], [c, d])]
    proofs = [answer.as_json() for answer in steps if isinstance(answer, Proof)]
    assert len(proofs) == 2
    assert await browser.run(LAWS, [proofs]) == []


def _spoilt(proof: Steps) -> list[Steps]:
    """The proof with something taken away or changed, in every step."""
    spoilt = []
    for index, step in enumerate(proof):
        others = [
            {"role": f"{FEDIDS['Z']}.p"},
            {"subject": FEDIDS["Z"]},
            {"statement": step["statement"].replace(" <- ", " <- " + FEDIDS["Z"] + ".p & ")},
            {"statement": "<img src=x onerror=alert(1)> <- " + FEDIDS["Z"]},
            *({"because": step["because"][:i] + step["because"][i + 1 :]} for i in range(len(step["because"]))),
        ]
        spoilt += [[*proof[:index], step | other, *proof[index + 1 :]] for other in others]
    return spoilt


async def test_what_is_no_proof_is_not_drawn_but_told(browser: Browser) -> None:
    known = credentials("A.p <- A.q.r & B.s\nA.q <- C\nC.r <- U\nB.s <- F\nB.s <- C.t\nC.t <- U")
    proof = Prover(known).prove(known[0].statement.head, Entity(FEDIDS["U"]), NOW)
    assert isinstance(proof, Proof)
    script = """
      return import("./proof.js").then(({ proofShown }) => arguments[0].map((steps) => {
        document.body.replaceChildren(...proofShown([steps], {}));
        return [document.querySelectorAll(".box").length > 0, document.body.textContent.includes("This is no proof")];
      }));
    """
    assert await browser.run(script, [proof.as_json()]) == [[True, False]]
    spoilt = _spoilt(proof.as_json())
    assert await browser.run(script, [*spoilt, []]) == [[False, True]] * (len(spoilt) + 1)
    assert await browser.console() == []


async def test_what_is_no_statement_is_told_as_it_came(browser: Browser) -> None:
    script = """
      return import("./proof.js").then(({ missingShown }) => {
        document.body.replaceChildren(...missingShown(arguments[0], {}));
        return document.body.textContent;
      });
    """
    evil = f"<script>alert(1)</script>.{'x' * 4000} <- <- &"
    told = await browser.run(script, [[evil], [f"{FEDIDS['A']}.p <- {FEDIDS['U']}"]])
    assert evil in told
    assert f"{FEDIDS['A'][:8]} would have to say that {FEDIDS['U'][:8]} has the role p." in told
    assert await browser.run("return document.body.scrollWidth <= document.documentElement.clientWidth")
    assert await browser.console() == []
