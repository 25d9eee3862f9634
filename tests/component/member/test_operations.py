"""`fed order stop` and its like, and `fed quota`, against a whole member: what they print, and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from federation_member.middleware.contract import Quota, UnusableSpec
from federation_member.orders import operations
from federation_member.service import Member
from fedkit.protocol.lending import Amounts
from tests.component.member.conftest import open_site
from tests.component.member.test_command_line import Shell
from tests.support.fake_middleware import Cloud

Site = tuple[Member, str, str]


@pytest.fixture
def cloud() -> Cloud:
    """A cloud that counts."""
    return Cloud(quota=Quota(Amounts(machines=10, vcpu=20), Amounts(machines=3, vcpu=7)))


@pytest.fixture
async def whole(tmp_path: Path, cloud: Cloud) -> AsyncIterator[Site]:
    """A member in front of that cloud."""
    async with open_site(tmp_path, cloud) as opened:
        yield opened


async def ordered(shell: Shell, *options: str) -> str:
    """An order that runs."""
    done = await shell("order", "create", *options, "--wait", "-o", "json")
    assert done.status == 0, done.err
    return str(done.data[0]["id"])


async def test_a_machine_is_stopped_looked_at_and_started(whole: Site, cloud: Cloud) -> None:
    _member, url, token = whole
    shell = Shell(url, token)
    order = await ordered(shell, "--image", "debian")
    stopped = await shell("order", "stop", order, "--wait", "-o", "json")
    assert (stopped.status, stopped.data["power"], stopped.data["state"]) == (0, "stopped", "fulfilled")
    assert "stopped" in (await shell("order", "stop", order)).out
    assert (await shell("order", "pause", order, "-o", "json")).data["power"] == "paused"
    assert (await shell("order", "start", order, "-o", "json")).data["power"] == "running"
    lease = (await shell("order", "show", order, "-o", "json")).data["lease_id"]
    cloud.consoles[lease] = "booting\x1b[2J\nlogin: "
    assert (await shell("order", "console", order)).out == "booting\nlogin: \n"
    cloud.wish_refusal = UnusableSpec("Not here.")
    refused = await shell("order", "stop", order, "--wait")
    assert refused.status == 1
    assert "cannot be stopped: Not here. [middleware.unusable_spec]" in refused.err


async def test_rules_are_shown_and_replaced(whole: Site, cloud: Cloud) -> None:
    _member, url, token = whole
    shell = Shell(url, token)
    open_net = await ordered(shell, "--kind", "network", "--cidr", "10.9.0.0/24", "--allow", "tcp 22")
    assert "tcp 22" in (await shell("order", "rules", open_net)).out
    net = await ordered(shell, "--kind", "network", "--cidr", "10.8.0.0/24")
    assert "Nothing is let through" in (await shell("order", "rules", net)).err
    changed = await shell("order", "rules", net, "--allow", "tcp 80 from 0.0.0.0/0", "--allow", "icmp", "--wait")
    assert changed.status == 0, changed.err
    assert [line.split("  ")[0] for line in changed.out.splitlines()[1:]] == ["tcp 80 from 0.0.0.0/0", "icmp"]
    assert (await shell("order", "rules", net, "--none", "-o", "json")).data["rules"] == []
    assert (await shell("order", "rules", net, "--allow", "nonsense")).status == 2
    assert (await shell("order", "rules", net, "--allow", "icmp", "--none")).status == 2
    bad = await shell("order", "rules", net, "--allow", "tcp 99999")
    assert (bad.status, "web.invalid" in bad.err) == (2, True)
    refused = await shell("order", "stop", net)
    assert (refused.status, "lease.cannot" in refused.err) == (1, True)


async def test_quota_and_what_members_can_do(whole: Site) -> None:
    _member, url, token = whole
    shell = Shell(url, token)
    await ordered(shell, "--image", "debian")
    told = (await shell("quota", "-o", "json")).data
    assert [(one["member"], one["account"], one["total"]["machines"], one["mine"]["machines"]) for one in told] == [
        ("site-a.test", "federation", 10, 1)
    ]
    table = (await shell("quota", "--member", "site-a.test")).out
    assert "CPUs" in table
    assert "federation" in table
    unknown = await shell("quota", "--member", "nobody")
    assert (unknown.status, "directory.unknown_member" in unknown.err) == (1, True)
    members = (await shell("members")).out
    assert all(word in members for word in ("small", "large", "debian", "power", "console"))
    assert [one["name"] for one in (await shell("flavours", "-o", "json")).data] == ["small", "large"]


async def test_a_quota_that_nobody_tells_is_a_failure(
    whole: Site, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    _member, url, token = whole
    shell = Shell(url, token)
    cloud.down = True
    refused = await shell("quota")
    assert (refused.status, "cli.not_told" in refused.err, "middleware.unavailable" in refused.out) == (1, True, True)
    cloud.down = False
    cloud.hanging.add("quota")
    monkeypatch.setattr(operations, "QUOTA_PATIENCE", 0.05)
    silent = await shell("quota", "-o", "json")
    assert (silent.status, "No answer came from site-a.test" in silent.err) == (3, True)
    assert [item["code"] for item in silent.data] == ["mesh.no_answer"]
