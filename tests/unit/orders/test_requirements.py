"""Requirement expressions: what they accept, what is refused, and that nothing matches by accident."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation_member.errors import UnknownRequirement, UnusableRequirements
from federation_member.orders.requirements import MAX_DEPTH, MAX_LENGTH, parse
from fedkit.errors import FedError

WORLD: dict[str, Any] = {
    "vcpu": 2,
    "ram_mb": 2048,
    "disk_gb": 10,
    "flavour": "medium",
    "image": "debian",
    "member": "site-b.test",
    "fedid": "b" * 40,
    "address": "fm.site-b.test",
    "attributes": {"arch": "x86_64", "gpu": True, "price": 0.5},
}


def meets(expression: str) -> bool:
    """Whether the world above meets an expression."""
    return parse(expression, machine=True).refusal(WORLD) is None


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "  ",
        "vcpu >= 2 && ram_mb >= 1024",
        'member == "site-b.test"',
        "attributes.arch in ['x86_64', 'aarch64']",
        "attributes.gpu && attributes.price < 1.0",
        "has(attributes.arch) && !has(attributes.none)",
        'address.endsWith(".site-b.test") || vcpu > 100',
        "(vcpu == 1 || vcpu == 2) && disk_gb * 2 == 20",
        'Glue2vCPU >= 2 && Glue2RAM >= 1024 && Glue2CloudComputeManagerID == "fm.site-b.test"',
        'Glue2CloudComputeManagerID=="site-b.test"&&glue2disk>=10',
        '"fm.site-a.test" != Glue2CloudComputeManagerID',
    ],
)
def test_meets(expression: str) -> None:
    assert meets(expression)


@pytest.mark.parametrize(
    "expression",
    [
        "vcpu > 2",
        "attributes.none == 1",
        "attributes.arch > 3",
        "attributes.arch",
        'Glue2CloudComputeManagerID == "fm.site-a.test"',
        'Glue2CloudComputeManagerID != "fm.site-b.test"',
        "vcpu / (vcpu - 2) > 0",
    ],
)
def test_does_not_meet(expression: str) -> None:
    assert not meets(expression)


@pytest.mark.parametrize(
    ("expression", "nearest"),
    [
        ("vcpus > 1", "did you mean vcpu?"),
        ("Glue2vCPUs > 1", "did you mean Glue2vCPU?"),
        ("glue2memory > 1 && membr == ''", "Requirements have no name"),
        ("ram > 1", "did you mean ram_mb?"),
        ("zzzzzz == 1", "known here: member"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(expression: str, nearest: str) -> None:
    with pytest.raises(UnknownRequirement, match=nearest.replace("?", r"\?")):
        parse(expression, machine=True)


@pytest.mark.parametrize(
    "expression",
    [
        "vcpu >",
        "vcpu = 2",
        "vcpu > 'a'",
        "vcpu",
        "1 + 1",
        "[1, 2].map(vcpu, [1].map(ram_mb, 1)) == []",
        "[1].all(vcpu, vcpu > 0)",
        'member.matches("(a+)+")',
        'member == r"raw"',
        'member == """long"""',
        "vcpu > 1 // comment",
        "Glue2CloudComputeManagerID",
        "(" * (MAX_DEPTH + 1) + "true" + ")" * (MAX_DEPTH + 1),
        "!" * 1000 + "true",
        "true" + " " * MAX_LENGTH,
        "vcpu > 9223372036854775808",
        "\x00",
        "vcpu ≥ 2",
    ],
)
def test_what_cannot_be_used_is_refused(expression: str) -> None:
    with pytest.raises(UnusableRequirements):
        parse(expression, machine=True)


def test_a_network_has_no_cpu() -> None:
    with pytest.raises(UnknownRequirement):
        parse("vcpu > 1", machine=False)
    assert parse('member == "site-b.test"', machine=False).refusal(WORLD) is None


def test_clauses_are_told_as_their_author_wrote_them() -> None:
    requirement = parse('vcpu>=1  &&(ram_mb > 1 || vcpu > 8) && Glue2CloudComputeManagerID == "x"', machine=True)
    assert [c.source for c in requirement.clauses] == [
        "vcpu>=1",
        "(ram_mb > 1 || vcpu > 8)",
        'Glue2CloudComputeManagerID == "x"',
    ]
    assert len(parse("vcpu > 1 && vcpu < 3 || ram_mb > 1", machine=True).clauses) == 1
    assert requirement.refusal(WORLD) == 'Glue2CloudComputeManagerID == "x"'


WORDS = st.sampled_from(
    [
        *WORLD,
        "&&",
        "||",
        "!",
        "(",
        ")",
        "[",
        "]",
        ">=",
        "==",
        "in",
        "+",
        "-",
        "1",
        "2.5",
        '"x"',
        ".",
        ",",
        "?",
        ":",
        "{",
        "}",
    ]
)


@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=25).map(" ".join)))
def test_any_text_is_answered(text: str) -> None:
    """It is refused with one of our errors, or it gives a definite yes or no."""
    try:
        requirement = parse(text, machine=True)
    except FedError:
        return
    assert requirement.refusal(WORLD) is None or isinstance(requirement.refusal(WORLD), str)


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_conjunction_of_clauses_is_the_expression(low: int, high: int) -> None:
    assert meets(f"vcpu > {low} && vcpu < {high}") == (low < 2 < high)
