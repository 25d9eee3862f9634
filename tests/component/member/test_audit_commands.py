"""`fed audit` against a whole member, and the policy that a running member takes in."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from federation_member.access.errors import FailedExpectations
from federation_member.config import PolicySection
from federation_member.service import Member, open_member
from fedkit.config import UnusableConfig
from tests.component.member.conftest import PASSWORD, make_config, open_site
from tests.component.member.test_command_line import Shell
from tests.support.fake_middleware import Cloud, FakeMiddleware
from tests.support.memory_network import MemoryNetwork
from tests.support.policies import rule

FAILS = """
[[expect]]
who = "self/physics/alice"
action = "compute"
result = "deny"
"""


async def as_operator(member: Member, url: str) -> Shell:
    """A shell of an operator of the site."""
    await member.accounts.add("root", "ops", PASSWORD, operator=True)
    _token, secret = await member.accounts.issue("root", "test", 1)
    return Shell(url, secret)


async def test_an_operator_reads_and_checks_and_a_user_does_not(site: tuple[Member, str, str]) -> None:
    member, url, token = site
    user, operator = Shell(url, token), await as_operator(member, url)
    done = await user("order", "create", "--image", "debian", "--wait", "--timeout", "60")
    assert done.status == 0, done.err
    refused = await user("audit", "list")
    assert refused.status == 1
    assert "[web.operators_only]" in refused.err
    listed = await operator("audit", "list", "--kind", "decision", "-o", "json")
    assert [entry["said"]["allowed"] for entry in listed.data] == [True]
    assert "physics/alice" in (await operator("audit", "list")).out
    number = listed.data[0]["sequence"]
    shown = await operator("audit", "show", str(number), "-o", "json")
    assert shown.data["said"]["rule"] == "own users"
    assert set(shown.data["said"]["credentials"]) <= set(shown.data["texts"])
    assert (await operator("audit", "show", "999")).status == 2
    good = await operator("audit", "verify", "-o", "json")
    assert (good.status, good.data["good"]) == (0, True)


async def test_a_changed_entry_is_told_with_its_number(tmp_path: Path) -> None:
    async with open_site(tmp_path) as (member, url, token):
        operator = await as_operator(member, url)
        await Shell(url, token)("order", "create", "--image", "debian", "--wait", "--timeout", "60")
        last = (await operator("audit", "list", "--last", "1", "-o", "json")).data[0]["sequence"]
        change = text("UPDATE access_audit SET entry = entry || ' ' WHERE sequence = :last")
        engine = create_engine(f"sqlite:///{tmp_path}/site-a.test.db")
        with engine.begin() as conn:
            conn.execute(change, {"last": last})
        engine.dispose()
        bad = await operator("audit", "verify")
        assert bad.status == 1
        assert f"not good from entry {last} on" in bad.err


async def test_sighup_reads_the_policy_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(rule("first", "self/*/*"))
    config = make_config(tmp_path).model_copy(update={"policy": PolicySection(file=file)})
    link = MemoryNetwork().link("fm.site-a.test")
    async with open_member(config, link, FakeMiddleware(Cloud())) as member:
        file.write_text(rule("second", "self/*/*"))
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(20):
            while names(member) != "second":  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
        file.write_text("nonsense")
        with pytest.raises(UnusableConfig, match="TOML"):
            await member.access.reload()
        file.write_text(rule("third", "self/*/*") + FAILS)
        with pytest.raises(FailedExpectations):
            await member.access.reload()
        assert names(member) == "second"


def names(member: Member) -> str | None:
    """The rule in force."""
    with member.access.world.still() as state:
        rules = state.policy.rules.rules
        return rules[0].name if rules else None
