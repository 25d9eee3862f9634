"""`policy.toml`: what is read, and what is refused with the place and what to write instead."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation_member.access.errors import UnusablePolicy
from federation_member.access.model import AccountMapping, Action, How
from federation_member.access.policy_file import SIZE_LIMIT, load, read
from federation_member.access.rules import Expectation, Rules
from federation_member.access.who import Reference
from fedkit.config import UnusableConfig
from fedkit.errors import FedError
from fedkit.identity.patterns import NamePattern
from tests.unit.access.policies import ACME, HEAD, A, policy, rule

FULL = """
[[rule]]
name = "proj1-small"
who = ["site-a/proj1/*", "acme.preferred.customer", "site-a.r & self.s", "alice"]
may = ["compute", "network"]
flavours = ["small"]
node_types = ["pc*"]
images = ["debian"]
services = ["SMB"]
count = 2
hours = "mon-fri 08:00-18:00 Europe/Berlin"
account = "proj1"

[[expect]]
who = "site-a/proj1/alice"
action = "compute"
flavour = "small"
at = "2026-11-23T10:00:00Z"
has = ["site-a.r"]
held = 1
result = "allow"
"""


def test_everything_is_read() -> None:
    rules = policy(FULL)
    (one,) = rules.rules
    assert (one.name, one.may, one.flavours, one.count) == ("proj1-small", ("compute", "network"), ("small",), 2)
    assert (one.node_types, one.images, one.services) == (("pc*",), ("debian",), ("SMB",))
    assert one.hours is not None
    assert one.account == AccountMapping(How.STATIC, "proj1")
    assert [who.terms for who in one.who] == [
        (NamePattern(A.fedid, "proj1", "*"),),
        (Reference(ACME, ("preferred", "customer")),),
        (Reference(A.fedid, ("r",)), Reference("self", ("s",))),
        (Reference("a1" * 20),),
    ]
    at = datetime(2026, 11, 23, 10, tzinfo=UTC)
    wanted = Expectation("site-a/proj1/alice", Action("compute", "small"), True, at, 1, ("site-a.r",))
    assert rules.expectations == (wanted,)


def test_defaults_limit_nothing() -> None:
    one = policy(rule()).rules[0]
    assert (one.flavours, one.node_types, one.images, one.services) == (("*",),) * 4
    assert (one.count, one.hours, one.account) == (None, None, AccountMapping(How.STATIC, "federation"))


def test_an_empty_policy_lends_nothing() -> None:
    rules = read(b"", "policy.toml")
    assert (rules.rules, rules.expectations) == ((), ())
    assert rules.version != read(b"#", "policy.toml").version
    assert Rules().rules == ()


@pytest.mark.parametrize(
    ("account", "mapping"),
    [
        ('"proj1"', AccountMapping(How.STATIC, "proj1")),
        ('{name = "proj1"}', AccountMapping(How.STATIC, "proj1")),
        ('{rights = "proj1"}', AccountMapping(How.RIGHTS, "proj1")),
        ('{create = "fed-{project}"}', AccountMapping(How.CREATE, "fed-{project}")),
        ('{create = "f{testbed}-{user}"}', AccountMapping(How.CREATE, "f{testbed}-{user}")),
        ('{certificate = "1"}', AccountMapping(How.CERTIFICATE, "1")),
    ],
)
def test_the_four_ways_to_an_account(account: str, mapping: AccountMapping) -> None:
    assert policy(rule(f"account = {account}")).rules[0].account == mapping


def test_a_time_without_a_zone_is_utc() -> None:
    text = '[[expect]]\nwho = "site-a/p/u"\naction = "compute"\nresult = "deny"\nat = 2026-11-23T10:00:00'
    assert policy(text).expectations[0].at == datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (rule("flavors = []"), r"rule\.0\.flavors: unknown key; did you mean flavours\?"),
        (rule("acount = 1"), r"rule\.0\.acount: unknown key; did you mean account\?"),
        ("[[rules]]\n", r"rules: unknown key; did you mean rule\?"),
        (rule("account = {rigths = 'x'}"), r"rule\.0\.account\.rigths: unknown key; did you mean rights\?"),
        (rule("account = {rights = 'x', create = 'y'}"), r"rule\.0\.account: .*or one of"),
        (rule("account = {}"), r"rule\.0\.account: .*or one of"),
        (rule("account = {create = '{project}'}"), r"begins with a letter or digit, as in fed-\{project\}"),
        (rule("account = {create = 'x{name}'}"), r"\{name\} cannot stand in this account; here stand \['project'"),
        (rule("account = {create = 'x{user.__class__}'}"), r"cannot stand in this account"),
        (rule("account = {create = 'x{user!r}'}"), r"cannot stand in this account"),
        (rule("account = {create = 'x{user:9999999999}'}"), r"cannot stand in this account"),
        (rule("account = {create = 'x{'}"), r"is no template"),
        (rule("account = 'fed-{project}'"), r"\{project\} cannot stand in this account; here stand plain names"),
        (rule("account = '-rf'"), r"begins with a letter or digit"),
        (rule("account = 'a/b'"), r"'a/b' is not"),
        (rule("account = 'ü'"), r"'ü' is not"),
        (rule("account = ''"), r"begins with a letter or digit"),
        (rule(f"account = '{'x' * 64}'"), r"at most 63 characters"),
        (rule("count = 0"), r"rule\.0\.count: .*greater than or equal to 1"),
        (rule("hours = 'always'"), r"rule\.0 \(r\)\.hours: 'always' is no time zone"),
        (rule(may='"computes"'), r"rule\.0\.may\.0.*'compute'"),
        (rule(name="a b"), r"rule\.0\.name"),
        (rule() + rule(), r"Two rules are called r;"),
        (rule(who='"site-x/p/*"'), r"rule\.0 \(r\)\.who: Nobody is called 'site-x' here; did you mean site-"),
        (rule(who='"zzz.r"'), r'Nobody is called \'zzz\' here; say who it is: zzz = "<fedid>" in \[principals\]'),
        (rule(who='"a/b/c/d"'), r"'a/b/c/d' says nobody: A name is written"),
        (rule(who='"site-a.r.s.t"'), r"neither a role such as"),
        (rule(who='"site-a."'), r"neither a role such as"),
        (rule(who='"site-a.r s"'), r"neither a role such as"),
        (rule(who='"site-a/p/* &"'), r"Nobody is called ''"),
        (rule(who='"site-a/p/* & & site-a.r"'), r"Nobody is called ''"),
        (rule(who=""), r"rule\.0\.who"),
        (rule(who='"///"'), r"A name is written"),
        (rule(who='"//"'), r"needs at least one part"),
        (rule(who='"( , , fedid:12)"'), r"After fedid: stand 40"),
        ("[roles]\nmember = []", r"member is a role that this member gives by itself"),
        ("[roles]\nrule_x = []", r"rule_x is a role that this member gives by itself"),
        ("[roles]\ntestbed_x = []", r"testbed_x is a role that this member gives by itself"),
        ("[roles]\np = ['site-x.r']", r"roles\.p: Nobody is called 'site-x'"),
        ("[roles]\n'a b' = []", r"roles\.a b"),
        ("[[expect]]\nwho = 'x'\naction = 'compute'\nresult = 'maybe'", r"expect\.0\.result: .*'allow' or 'deny'"),
        ("[[expect]]\nwho = 'x'\naction = 'compute'\nresult = 'deny'\nat = 9999-12-31T23:59:59Z", r"1970 to 9998"),
        ("[[expect]]\nwho = 'x'\nresult = 'allow'", r"expect\.0\.action: Field required"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, told: str) -> None:
    with pytest.raises((UnusablePolicy, UnusableConfig), match=told) as error:
        policy(text)
    assert error.value.message.startswith("policy.toml")
    assert error.value.code in {"access.unusable_policy", "config.invalid"}


@pytest.mark.parametrize("alias", ["self", "ab" * 20, "a.b", "a/b", "'a b'"])
def test_what_no_alias_is_called(alias: str) -> None:
    with pytest.raises(UnusableConfig):
        read(f'[principals]\n"{alias}" = "{A.fedid}"'.encode(), "policy.toml")


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (SIZE_LIMIT + 1),
        b"#" * 10_000_000,
        b"a = " + b"[" * 500_000,
        b"a = " + b"{b=" * 200_000,
        b"[" + b"a." * 300_000 + b"a]",
        b"[" + b"a." * 4000 + b"a]",
        (b"b" + b".a" * 4000 + b" = 1\n") * 2,
        b"a = [\n" + b"[\n" * 100_000,
        b"\xff\xfe",
        b"\0",
        "[[rule]]\nname = '\u202egnp'\nwho = ['*/*/*']\nmay = ['compute']".encode(),
        "[[rule]]\nname = 'r'\nwho = ['\u2044/p/u']\nmay = ['compute']".encode(),
        "[[rule]]\nname = 'r'\nwho = ['sıte-a/p/u']\nmay = ['compute']".encode(),
        b"[[rule]]\nname = 'r'\nwho = ['" + b"&" * 2000 + b"']\nmay = ['compute']",
        b"[[rule]]\nname = 'r'\nwho = ['" + b"a" * 500_000 + b"']\nmay = ['compute']",
        b"[[rule]]\n" * 2000,
        b"[principals]\n" + b"".join(b"p%d = '%040d'\n" % (n, n) for n in range(1001)),
        b"rule = 1",
        b"[[rule]]\nname = 1\nwho = 2\nmay = 3",
        b"[principals]\nx = 'not a fedid'",
        b"[[expect]]\nwho = 'x'\naction = 'compute'\nresult = 'deny'\nat = 'yesterday'",
        b"[[expect]]\nwho = 'x'\naction = 'compute'\nresult = 'deny'\nat = 1e400",
    ],
    ids=range(22),
)
def test_hostile_files_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(FedError) as told:
        read(data, "policy.toml")
    assert told.value.code in {"access.unusable_policy", "config.invalid"}
    assert told.value.message.startswith("policy.toml")


def test_a_file_is_loaded_by_path(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(HEAD + FULL)
    assert load(path) == policy(FULL)
    with pytest.raises(UnusableConfig, match="cannot be read"):
        load(tmp_path / "other.toml")
    with path.open("ab") as file:
        file.write(b"#" * SIZE_LIMIT)
    with pytest.raises(UnusablePolicy, match="at most"):
        load(path)
