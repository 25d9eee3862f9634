"""A user of a real Keystone at a real member's API, dashboard and command line."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.openstack.api import Account
from federation_member.accounts.errors import ProviderUnavailable, WrongPassword
from federation_member.accounts.keystone import Keystone, KeystoneConfig, OperatorRule, ProjectRule
from federation_member.orders.model import OrderState, User
from tests.component.web.dashboard import dashboard
from tests.support.browser import installed, open_browser
from tests.support.federation import Federation, Member, machine
from tests.support.openstack import OpenStack


@pytest.fixture
def someone(real_openstack: OpenStack) -> Account:
    """A user with a project of its own, of the same name."""
    return real_openstack.project()


def provider(cloud: OpenStack, **options: object) -> Keystone:
    """As a site configures it."""
    return Keystone(KeystoneConfig.model_validate({"url": cloud.auth_url} | options))


@pytest.fixture
async def site(real_openstack: OpenStack, tmp_path: Path) -> AsyncIterator[tuple[Member, str]]:
    """A member whose users are those of the Keystone too, and its address."""
    async with Federation(tmp_path) as world:
        member = await world.add("a")
        async with dashboard(member, {"cloud": provider(real_openstack)}) as url:
            yield member, url


async def test_keystone_says_who_one_is_and_until_when(real_openstack: OpenStack, someone: Account) -> None:
    found = await provider(real_openstack).sign_in(someone.user, someone.password)
    assert (found.user, found.projects, found.operator) == (someone.user, (someone.project,), None)
    now = datetime.now(UTC)
    assert now < found.until < now + timedelta(days=1)
    again = await provider(real_openstack).sign_in(someone.user, someone.password)
    assert again.subject == found.subject != ""


async def test_roles_count_where_rules_name_them(real_openstack: OpenStack, someone: Account) -> None:
    rules = [
        ProjectRule(project="test-*", role="member", to="lab"),
        ProjectRule(project="test-*", role="admin", to="never"),
    ]
    operators = [OperatorRule(project=someone.project, role="admin")]
    options = {"projects": rules, "operators": operators}
    found = await provider(real_openstack, **options).sign_in(someone.user, someone.password)
    assert (found.projects, found.operator) == (("lab",), False)
    options["operators"] = [OperatorRule(project=someone.project, role="member")]
    assert (await provider(real_openstack, **options).sign_in(someone.user, someone.password)).operator


async def test_keystone_refuses(real_openstack: OpenStack, someone: Account) -> None:
    for user, password in ((someone.user, "wrong"), ("nobody-of-that-name", "wrong"), (someone.user, "")):
        with pytest.raises(WrongPassword):
            await provider(real_openstack).sign_in(user, password)
    with pytest.raises(WrongPassword):
        await provider(real_openstack, domain="Nowhere").sign_in(someone.user, someone.password)


async def test_the_command_line_signs_in(
    site: tuple[Member, str], someone: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy.cli import main

    member, url = site
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{someone.password}\n"))
    arguments = ["login", url, "--user", someone.user, "--provider", "cloud", "--password-stdin"]
    assert await asyncio.to_thread(main, arguments) == 0
    assert await asyncio.to_thread(main, ["order", "create", "--image", "debian"]) == 0
    name = f"{someone.user}@cloud"
    (order,), _more = await member.orders.page(User("", name), state=None, kind=None, batch=None, after=None, limit=10)
    assert order.owner == User(someone.project, name)


@pytest.mark.skipif(not installed(), reason="no Chromium")
async def test_the_dashboard_signs_in(site: tuple[Member, str], someone: Account) -> None:
    """The user's machine runs under the three-level name MEMBER/project/user@provider."""
    member, url = site
    async with open_browser() as browser:
        await browser.open(url)
        await browser.until("return document.querySelectorAll('[name=provider] option').length === 2")
        await browser.run("document.querySelector('[name=provider]').value = 'cloud'")
        await browser.type("[name=user]", someone.user)
        await browser.type("[name=password]", someone.password)
        await browser.click("#sign-in-form button")
        await browser.find("#who")
        await browser.until("return document.getElementById('user').textContent.includes('@cloud')")
        assert await browser.console() == []
    user = User(someone.project, f"{someone.user}@cloud")
    order = (await member.orders.create(user, machine(), None))[0]
    await member.federation.settle(lambda: _runs(member, user, order.id))
    why = await member.orders.why(user, order.id)
    assert why.attempts[0].name == f"{member.key.fedid}/{someone.project}/{someone.user}@cloud"


async def _runs(member: Member, user: User, order_id: str) -> bool:
    return (await member.orders.get(user, order_id)).state is OrderState.FULFILLED


async def test_a_keystone_that_stands_still(
    real_openstack: OpenStack, someone: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation_member.accounts.keystone.SECONDS", 1.0)
    with real_openstack.paused(), pytest.raises(ProviderUnavailable):
        await provider(real_openstack).sign_in(someone.user, someone.password)
