"""The proof that a lender tells is outside input: what is not one is refused where it comes in."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from federation_member.orders.store import MISSING
from fedkit.protocol.lending import Grounds

LENDER, HOME, USER = "b" * 40, "a" * 40, "c" * 40
STEP: dict[str, Any] = {
    "role": f"{HOME}.project_p",
    "subject": USER,
    "statement": f"{HOME}.project_p <- {USER}",
    "credential": "0" * 64,
    "expires": "2026-11-23T10:00:00+00:00",
    "because": [],
}
GOAL = STEP | {"role": f"{LENDER}.rule_small", "statement": f"{LENDER}.rule_small <- {HOME}.project_p", "because": [0]}


def test_a_proof_is_kept_as_it_was_told() -> None:
    told = {"rule": "small", "proofs": [[STEP], [STEP, GOAL]]}
    kept = Grounds.model_validate(told).model_dump(mode="json")
    assert kept["proofs"][1][1] == GOAL | {"expires": "2026-11-23T10:00:00Z"}


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"rule": "small", "proofs": []},
        {"rule": "small", "proofs": [[]]},
        {"rule": "\x1b[2J", "proofs": [[STEP]]},
        {"rule": "small", "proofs": [[STEP | {"statement": "a\nb"}]]},
        {"rule": "small", "proofs": [[GOAL]]},  # rests on itself
        {"rule": "small", "proofs": [[STEP, GOAL | {"because": [-1]}]]},
        {"rule": "small", "proofs": [[STEP, GOAL | {"because": [2]}, STEP]]},
        {"rule": "small", "proofs": [[STEP | {"credential": "../.."}]]},
        {"rule": "small", "proofs": [[STEP | {"script": ""}]]},
    ],
)
def test_what_is_no_proof_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Grounds.model_validate(told)


@pytest.mark.parametrize("wanted", ["a\nfulfilled: runs at site-b.test", "\x1b[2J", ""])
def test_what_is_missing_is_told_in_lines_that_cannot_pass_for_others(wanted: str) -> None:
    with pytest.raises(ValidationError):
        MISSING.validate_python([[wanted]])
