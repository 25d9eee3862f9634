"""What becomes of whom an identity provider recognises, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from federation_member.accounts.errors import (
    AccountExists,
    NoProject,
    TooManyAttempts,
    Unauthenticated,
    UnknownProvider,
    UnusableAccount,
    WrongPassword,
)
from federation_member.accounts.keystone import Keystone, KeystoneConfig, OperatorRule, ProjectRule
from federation_member.accounts.service import Accounts
from federation_member.accounts.signing_in import SignIn
from federation_member.accounts.store import Account, Token
from federation_member.credentials import signing
from fedkit.identity.keys import PrivateKey
from fedkit.migrations import upgrade
from fedkit.store import Database
from tests.component.signing_in.false_keystone import FalseKeystone

MEMBER = PrivateKey.generate()


class Site:
    """Accounts that a Keystone stands behind."""

    def __init__(self, db: Database, keystone: FalseKeystone) -> None:
        self.db = db
        self.keystone = keystone
        self.now = datetime.now(UTC)
        self.accounts = Accounts(db, lambda: self.now)
        self.config = KeystoneConfig(url=keystone.url)

    async def sign_in(self, user: str = "alice", password: str = "secret", provider: str = "cloud") -> Account:
        """Sign in; returns the account."""
        return (await self.whole(user, password, provider))[0]

    async def whole(
        self, user: str = "alice", password: str = "secret", provider: str = "cloud"
    ) -> tuple[Account, Token, str]:
        """Sign in."""
        providers = {"cloud": Keystone(self.config)}
        return await SignIn(self.accounts, providers).sign_in(provider, user, password, "192.0.2.1", "test", 90)


@pytest.fixture
async def site(database_url: str) -> AsyncIterator[Site]:
    async with Database(database_url) as db, FalseKeystone().running() as keystone:
        upgrade(db.engine, "federation_member.migrations")
        made = Site(db, keystone)
        yield made
        made.accounts.close()


async def test_an_account_is_made_and_its_token_ends_with_keystones(site: Site) -> None:
    account, token, secret = await site.whole()
    assert (account.name, account.projects, account.custodial, account.operator) == (
        "alice@cloud",
        ("physics",),
        True,
        False,
    )
    assert token.expires == site.keystone.until
    assert (await site.accounts.authenticate(secret)).name == "alice@cloud"
    site.now = site.keystone.until
    with pytest.raises(Unauthenticated):
        await site.accounts.authenticate(secret)
    site.keystone.until += timedelta(hours=1)
    again = await site.sign_in()
    assert again.principal == account.principal  # the same person to everybody else


async def test_a_token_lasts_no_longer_than_was_asked_for(site: Site) -> None:
    site.keystone.until = site.now + timedelta(days=1000)
    _account, token, _secret = await site.whole()
    assert token.expires == site.now + timedelta(days=90)


async def test_a_wrong_password_is_wrong_and_guessing_ends_in_a_pause(site: Site) -> None:
    for _ in range(10):
        with pytest.raises(WrongPassword):
            await site.sign_in(password="guess")
    asked = len(site.keystone.asked)
    with pytest.raises(TooManyAttempts):
        await site.sign_in()
    assert len(site.keystone.asked) == asked  # Keystone locks users out; it must not do so for our strangers
    assert await site.accounts.everybody() == []


async def test_no_local_account_is_taken_over(site: Site) -> None:
    await site.accounts.add("alice", "physics", "correct horse", operator=True)
    found = await site.sign_in()
    assert (found.name, found.operator) == ("alice@cloud", False)
    for name in ("alice", "alice@cloud"):
        with pytest.raises(WrongPassword):
            await site.accounts.log_in(name, "secret", "192.0.2.1")
    with pytest.raises(WrongPassword):
        await site.accounts.log_in("alice@cloud", "", "192.0.2.1")
    with pytest.raises(UnusableAccount):
        await site.accounts.add("mallory@cloud", "physics", "correct horse")


async def test_a_name_is_not_inherited_by_who_is_called_so_later(site: Site) -> None:
    await site.sign_in()
    site.keystone.subject = "u-2"
    with pytest.raises(AccountExists):
        await site.sign_in()
    await site.accounts.remove("alice@cloud")  # its operator says that this is fine
    assert (await site.sign_in()).name == "alice@cloud"


async def test_who_is_renamed_stays_who_they_are(site: Site) -> None:
    first = await site.sign_in()
    site.keystone.user = "alice-smith"
    assert await site.sign_in("alice-smith") == first


async def test_projects_follow_keystone_and_what_was_said_is_taken_back(site: Site) -> None:
    site.keystone.projects |= {"art": ["reader"]}
    account = await site.sign_in()
    assert account.projects == ("art", "physics")
    said = signing.vouching(MEMBER.fedid, account.principal, "physics", account.name)
    await site.db.run(lambda tx: signing.say(tx, account.name, MEMBER, said, site.now))
    del site.keystone.projects["physics"]
    assert (await site.sign_in()).projects == ("art",)
    left = await site.db.read(lambda conn: signing.valid(conn, account.name, said, site.now))
    assert len(left) == len(said) - 1
    site.keystone.projects = {}
    with pytest.raises(NoProject):
        await site.sign_in()
    assert (await site.accounts.get("alice@cloud")).projects == ()


async def test_who_is_in_no_project_that_counts_gets_no_account(site: Site) -> None:
    site.config = KeystoneConfig(url=site.keystone.url, projects=[ProjectRule(project="fed-*")])
    with pytest.raises(NoProject):
        await site.sign_in()
    assert await site.accounts.everybody() == []


async def test_rules_map_projects_and_roles(site: Site) -> None:
    site.keystone.projects = {
        "fed-physics": ["member"],
        "art": ["reader"],
        "music": ["member", "lender"],
        "Not A Name": ["lender"],
    }
    site.config = KeystoneConfig(
        url=site.keystone.url,
        projects=[
            ProjectRule(project="music", role="lender", to="music-abroad"),
            ProjectRule(project="art", role="lender"),
            ProjectRule(project="fed-*", to="cloud-{project}"),
            ProjectRule(project="*", role="lender"),
        ],
        operators=[OperatorRule(project="music", role="admin")],
    )
    account = await site.sign_in()
    assert (account.projects, account.operator) == (("music-abroad", "cloud-fed-physics", "music"), False)
    site.keystone.projects["music"].append("admin")
    assert (await site.sign_in()).operator
    site.keystone.projects["music"].remove("admin")
    assert not (await site.sign_in()).operator


async def test_a_suspension_and_an_operators_own_choice_stay(site: Site) -> None:
    account = await site.sign_in()
    await site.accounts.suspend(account.name)
    assert (await site.sign_in()).suspended == site.now


@pytest.mark.parametrize("name", ["al ice", "../alice", "ålice", "a" * 60, "-alice", "alice\n"])
async def test_names_that_cannot_be_names_here_are_refused(site: Site, name: str) -> None:
    site.keystone.user = name
    with pytest.raises(UnusableAccount):
        await site.sign_in(name)


async def test_a_provider_that_is_not_there(site: Site) -> None:
    with pytest.raises(UnknownProvider):
        await site.sign_in(provider="nowhere")
