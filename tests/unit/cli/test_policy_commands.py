"""`fed policy` on files, and the policy that `fed config check` looks at."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cli import main
from deploy.commands.sample_policy import POLICY
from federation_member.access.expectations import outcomes
from federation_member.access.model import KINDS
from federation_member.access.policy_file import AccountSection, PolicyFile, RuleSection, read
from fedkit.identity.keys import PrivateKey
from tests.unit.access.policies import HEAD, rule
from tests.unit.access.test_expectations import expect

Output = pytest.CaptureFixture[str]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


def fed(capsys: Output, *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_the_sample_shows_every_key_and_decides_as_it_says() -> None:
    for section in (PolicyFile, RuleSection, AccountSection):
        assert all(f"{name} = " in POLICY or f"[{name}]" in POLICY for name in section.model_fields), section
    assert all(kind in POLICY for kind in KINDS)
    found = outcomes(read(POLICY.encode(), "sample"), "00" * 20)
    assert len(found) == 5
    assert all(one.good for one in found)


def test_check_runs_the_expectations(file: Path, capsys: Output) -> None:
    status, out, err = fed(capsys, "policy", "check", file)
    assert status == 0
    assert err == f"{file} is good: 2 rules, 5 expectations met.\n"
    assert [line.split()[-1] for line in out.splitlines()] == ["RULE", "proj1-small", "-", "-", "partners", "partners"]


def test_check_tells_programs_what_was_compiled(file: Path, capsys: Output) -> None:
    status, out, _err = fed(capsys, "policy", "check", file, "-o", "json")
    told = json.loads(out)
    assert status == 0
    assert "self.rule_proj1-small <- site-a.project_proj1" in told["statements"]
    assert told["rules"] == ["proj1-small", "partners"]
    assert [one["good"] for one in told["expectations"]] == [True] * 5
    assert told["warnings"] == []


def test_a_failed_expectation_is_a_definite_no(file: Path, capsys: Output) -> None:
    file.write_text(HEAD + rule(who="'self.nobody'") + expect("site-a/p/u"))
    status, out, err = fed(capsys, "policy", "check", file)
    assert status == 1
    assert "1 of 1 expectations fail" in err
    assert "expect 1: site-a/p/u, compute: expected allow, decided deny" in err
    assert "missing: self.nobody <- site-a/p/u" in err
    assert "[access.failed_expectations]" in err
    assert "warning: Rule r: self.nobody: this policy gives nobody the role nobody" in err
    assert "deny" in out
    assert fed(capsys, "config", "check", file)[0] == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [("x = [", "is not TOML"), ("[[rules]]", "did you mean rule?"), (rule(who="'site-q/*/*'"), "Nobody is called"),
     (rule(who=f"'{'ab' * 20}/p*/*'"), "rule r: "), ("[principals]\nself = ''", "principals")],
)  # fmt: skip
@pytest.mark.parametrize("command", [["policy", "check"], ["config", "check", "--component", "policy"]])
def test_an_unusable_policy_is_unusable_input(
    file: Path, capsys: Output, text: str, told: str, command: list[str]
) -> None:
    file.write_text(text)
    status, out, err = fed(capsys, *command, file)
    assert status == 2
    assert told in err
    assert out == ""
    assert "Traceback" not in err


def test_config_check_knows_a_policy_by_its_tables(file: Path, capsys: Output) -> None:
    assert fed(capsys, "config", "check", file) == (0, "", f"{file} is good: 2 rules, 5 expectations met.\n")


def test_config_check_of_a_member_looks_at_its_policy(file: Path, tmp_path: Path, capsys: Output) -> None:
    _status, sample, _err = fed(capsys, "config", "sample", "member")
    key, secret, member = tmp_path / "key.pem", tmp_path / "secret", tmp_path / "member.toml"
    PrivateKey.generate().save(key)
    secret.write_text("secret\n")
    text = sample.replace("/etc/fedmesh/key.pem", str(key)).replace("/etc/fedmesh/xmpp.secret", str(secret))
    text = "\n".join(line for line in text.splitlines() if "policy" not in line) + f'\n[policy]\nfile = "{file}"\n'
    member.write_text(text)
    status, _out, err = fed(capsys, "config", "check", member)
    assert (status, err.endswith(f"{file}: 2 rules, 5 expectations met.\n")) == (0, True), err
    file.write_text(POLICY.replace('result = "deny"', 'result = "allow"'))
    status, _out, err = fed(capsys, "config", "check", member)
    assert status == 1
    assert "2 of 5 expectations fail" in err
    file.write_text(rule(who="'*/*/*'", may='"volume"'))
    _status, _out, err = fed(capsys, "config", "check", member)
    assert "warning: Rule r lends volume, and this member lends only compute, network." in err
    file.unlink()
    assert fed(capsys, "config", "check", member)[0] == 2


WEEKDAY = ["--at", "2026-11-23T10:00:00"]
SMALL = ["compute", "flavour=small", "image=debian-12", "node_type=pc3000", "service=SMB"]


def test_why_not_allows_with_a_proof(file: Path, capsys: Output) -> None:
    status, out, _err = fed(capsys, "policy", "why-not", "site-a/proj1/alice", *SMALL, *WEEKDAY, "-f", file)
    assert status == 0
    assert out.splitlines() == [
        "allowed",
        "Rule proj1-small allows it.",
        "  site-a.project_proj1 <- site-a/proj1/alice",
        "  self.rule_proj1-small <- site-a.project_proj1",
    ]


def test_why_not_denies_with_what_is_missing(file: Path, capsys: Output) -> None:
    arguments = ["policy", "why-not", "site-a/proj2/bob", *SMALL, *WEEKDAY, "-f", file]
    status, out, _err = fed(capsys, *arguments)
    assert status == 1
    assert out.startswith("denied\n")
    assert "  missing: site-a.project_proj1 <- site-a/proj2/bob" in out
    status, out, _err = fed(capsys, *arguments, "-o", "json")
    told = json.loads(out)
    assert (status, told["allowed"], told["rule"], told["account"], told["proof"]) == (1, False, "", "", [])
    assert ["site-a.project_proj1 <- site-a/proj2/bob"] in told["missing"]
    has = ["--has", "site-a.staff", "--has", "acme.customer", "-o", "yaml"]
    status, out, _err = fed(capsys, *arguments, *has)
    told = yaml.safe_load(out)
    assert (status, told["allowed"], told["rule"], told["account"]) == (0, True, "partners", "guests")


def test_why_not_names_the_account(file: Path, capsys: Output) -> None:
    arguments = ["policy", "why-not", "site-a/proj1/alice", *SMALL, *WEEKDAY, "-f", file, "-o", "json"]
    told = json.loads(fed(capsys, *arguments)[1])
    assert told["account"] == "fed-proj1"
    assert ".project_proj1 <- " in told["proof"][0]["statement"]
    assert told["action"]["services"] == ["SMB"]
    assert datetime.fromisoformat(told["at"]) == datetime(2026, 11, 23, 10, tzinfo=UTC)


def test_who_could(file: Path, capsys: Output) -> None:
    status, out, _err = fed(capsys, "policy", "who-could", *SMALL, *WEEKDAY, "-f", file, "-o", "json")
    first, second = json.loads(out)
    assert status == 0
    assert first == {
        "rule": "proj1-small",
        "who": ["site-a/proj1/*"],
        "account": "{create = fed-{project}}",
        "count": 2,
        "hours": "mon-fri 08:00-18:00 Europe/Berlin",
        "now": True,
    }
    assert (second["rule"], second["account"]) == ("partners", "guests")
    closed: list[dict[str, Any]] = json.loads(
        fed(capsys, "policy", "who-could", *SMALL, "--at", "2026-11-22T10:00:00", "-f", file, "-o", "json")[1]
    )
    assert [one["now"] for one in closed] == [False, True]
    file.write_text(HEAD + rule())
    assert fed(capsys, "policy", "who-could", "volume", "-f", file)[0] == 1


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (["computes"], "An action begins with its kind"),
        (["compute", "flavor=small"], "did you mean flavour=?"),
        (["compute", "small"], "says nothing about an action"),
        (["compute", "zzz=1"], "known are flavour=, node_type=, image=, service="),
        (["compute", "flavour=a", "flavour=b"], "two of flavour"),
    ],
)
def test_an_action_that_cannot_be_read(file: Path, capsys: Output, action: list[str], told: str) -> None:
    for command in (["why-not", "site-a/p/u"], ["who-could"]):
        status, out, err = fed(capsys, "policy", *command, *action, "-f", file)
        assert (status, out) == (2, "")
        assert told in err


@pytest.mark.parametrize("at", ["9999-12-31", "1969-12-31"])
def test_a_time_that_no_clock_shows(file: Path, capsys: Output, at: str) -> None:
    status, _out, err = fed(capsys, "policy", "who-could", "compute", "-f", file, "--at", at)
    assert (status, "the years 1970 to 9998" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check"], "Name a policy"),
        (["who-could", "compute"], "Name a policy"),
        (["check", "/nowhere/policy.toml"], "cannot be read"),
        (["check", "-c", "/nowhere/member.toml"], "cannot be read"),
        (["import-fedd"], "Name at least one database"),
        (["import-fedd", "--access", "/nowhere/db"], "cannot be read"),
    ],
)
def test_what_is_not_named_is_said(capsys: Output, arguments: list[str], told: str) -> None:
    status, out, err = fed(capsys, "policy", *arguments)
    assert (status, out) == (2, "")
    assert told in err


def test_fedds_databases_become_a_policy_that_is_good(tmp_path: Path, capsys: Output) -> None:
    access, policy = tmp_path / "access_db", tmp_path / "new.toml"
    access.write_text(f"(fedid:{'ab' * 20}, proj1, <any>) -> (DETER, fred, guest)\nfoo: bar\n")
    status, out, err = fed(capsys, "policy", "import-fedd", "--access", access)
    assert status == 0
    assert "warning: " in err
    tomllib.loads(out)
    policy.write_text(out)
    assert fed(capsys, "policy", "check", policy)[0] == 0
    access.write_text("nonsense\n(DETER, a, b) -> (c, d, e)\n")
    status, out, err = fed(capsys, "policy", "import-fedd", "--access", access)
    assert (status, out) == (2, "")
    assert f"{access}:1: " in err
    assert f"{access}:2: 'DETER' is not" in err or f"{access}:2: 'DETER' is no fedid" in err
