"""Whatever is written, the answer is a value or an error with a code and a sentence; never a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation_member.access.advice import advise
from federation_member.access.compile import statements
from federation_member.access.expectations import outcomes
from federation_member.access.fedd_databases import Databases
from federation_member.access.fedd_policy import convert
from federation_member.access.hours import Hours
from federation_member.access.policy_file import read
from federation_member.access.questions import action_of
from federation_member.access.suppose import Supposition
from federation_member.access.who import Who
from fedkit.errors import InputError
from tests.unit.access.policies import HEAD, MEMBERS, OWN, A, policy

FEDID = A.fedid
words = st.sampled_from(
    ["site-a", "self", FEDID, "fedid:", "*", "/", "//", "(", ")", ",", "&", ".", "->", "<any>", "<none>", "<same>", "access",
     "mon", "-", ":", "08:00", "24:00", "Europe/Berlin", "restricted", "compute", "=", "flavour", "[", "]", "!", '"', "\n", " ",
     "\0", "\u202e", "ü", "٣", "_x2e_", "{", "}"]
)  # fmt: skip
texts = st.lists(words | st.text(max_size=3), max_size=24).map("".join)


def _whole_policy(text: str) -> None:
    rules = policy(text)
    statements(rules, OWN.fedid, MEMBERS)
    outcomes(rules, OWN.fedid, MEMBERS)
    advise(rules, ["compute"], MEMBERS)


def _converted(kind: str) -> Callable[[str], None]:
    def convert_it(text: str) -> None:
        converted, _warnings = convert(Databases.parse({kind: ("db", text)}))
        rules = read(converted.encode(), "converted")  # what is converted is a policy
        statements(rules, OWN.fedid, MEMBERS)

    return convert_it


READERS: dict[str, Callable[[str], Any]] = {
    "hours": Hours.parse,
    "who": lambda text: Who.parse(text, {"site-a": FEDID}),
    "somebody": Supposition(policy(""), OWN.fedid, MEMBERS).somebody,
    "action": lambda text: action_of(text.split()),
    "policy": _whole_policy,
    "access": _converted("access"),
    "ec": _converted("ec"),
    "map": _converted("map"),
    "simple": _converted("simple"),
}


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_any_text(reader: str, text: str) -> None:
    _is_answered(READERS[reader], text)


@settings(max_examples=200, deadline=None)
@given(who=texts, hours=texts, name=texts, account=texts)
def test_any_values_of_a_policy(who: str, hours: str, name: str, account: str) -> None:
    quoted = [
        repr(text.replace("'", "").replace("\\", "")).replace("\\x", "\\u00") for text in (who, hours, name, account)
    ]
    rule = '[[rule]]\nname = "r"\nwho = [{}]\nmay = ["*"]\nhours = {}\naccount = {{create = {}}}\n'
    expect = '[[expect]]\nwho = {}\naction = "compute"\nresult = "deny"\nat = "2026-11-23T10:00:00Z"\n'
    _is_answered(_whole_policy, rule.format(quoted[0], quoted[1], quoted[3]) + expect.format(quoted[2]))


@given(st.binary(max_size=200))
def test_any_octets(data: bytes) -> None:
    _is_answered(lambda _text: read(HEAD.encode() + data, "policy.toml"), "")


def _is_answered(reader: Callable[[str], Any], text: str) -> None:
    try:
        reader(text)
    except InputError as error:
        told = error
    else:
        return
    assert told.code.partition(".")[0] in {"access", "config", "identity", "policy"}
    assert told.message
