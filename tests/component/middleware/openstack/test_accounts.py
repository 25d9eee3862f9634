"""Accounts that the federation makes in a cloud, and what it gives to the site's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.openstack.api import Client
from federation_member.middleware.contract import AccountInUse, AccountKind, AccountSpec, KeepsAccounts, NoQuota
from fedkit.protocol.lending import Flavour
from tests.component.middleware.contract import compute, keeps_accounts, made, new_key, running, under
from tests.component.middleware.openstack.place import OpenStackSite


@pytest.fixture
def admin(site: OpenStackSite) -> Client:
    """Who may do everything."""
    return Client.administrator(site.openstack)


@pytest.fixture
def private(site: OpenStackSite, admin: Client) -> Iterator[dict[str, Any]]:
    """A flavour that nobody may use."""
    body = {"name": site.site, "vcpus": 1, "ram": 128, "disk": 1, "os-flavor-access:is_public": False}
    flavour = admin.post("nova", "/v2.1/flavors", {"flavor": body})["flavor"]
    yield flavour
    admin.delete("nova", f"/v2.1/flavors/{flavour['id']}")


def users_of(admin: Client, flavour: dict[str, Any]) -> set[str]:
    """Projects that may use a private flavour."""
    path = f"/v2.1/flavors/{flavour['id']}/os-flavor-access"
    return {access["tenant_id"] for access in admin.get("nova", path)["flavor_access"]}


def projects(admin: Client, name: str) -> list[str]:
    """Ids of the projects of this name."""
    return [project["id"] for project in admin.get("keystone", f"/v3/projects?name={name}")["projects"]]


async def test_a_made_account_may_use_what_its_rights_name_and_leaves_nothing(
    site: OpenStackSite, admin: Client, private: dict[str, Any]
) -> None:
    name = f"made-{site.site}"
    account = AccountSpec(name, AccountKind.CREATED, (), (private["name"],))
    site.extra["flavours"] = ["*", private["name"]]
    async with running(site) as middleware:
        keeper: KeepsAccounts = keeps_accounts(middleware)
        await keeper.ensure_account(account)
        assert users_of(admin, private) == set(projects(admin, name))
        flavour = Flavour(name=private["name"], vcpu=1, ram_mb=128, disk_gb=1)
        request = dataclasses.replace(under(name, compute(site)), flavour=flavour)
        machine = await made(middleware, new_key(), request)
        with pytest.raises(AccountInUse, match="servers"):
            await keeper.remove_account(name)
        await middleware.delete(machine.key)
        (project,) = projects(admin, name)
        await keeper.remove_account(name)
    assert projects(admin, name) == []
    assert users_of(admin, private) == set()
    groups = admin.get("neutron", "/v2.0/security-groups")["security_groups"]
    assert [group for group in groups if group["project_id"] == project] == []
    assert await site.leftovers() == []


async def test_what_the_site_gave_its_own_account_stays(
    site: OpenStackSite, admin: Client, private: dict[str, Any]
) -> None:
    (project,) = projects(admin, f"{site.prefix}-shared")
    action = f"/v2.1/flavors/{private['id']}/action"
    account = AccountSpec("shared", AccountKind.EXISTING, (), (private["name"], "small"))
    async with running(site) as middleware:
        keeper: KeepsAccounts = keeps_accounts(middleware)
        await keeper.ensure_account(account)
        assert users_of(admin, private) == {project}
        await keeper.ensure_account(dataclasses.replace(account, rights=()))
        assert users_of(admin, private) == set()
        admin.post("nova", action, {"addTenantAccess": {"tenant": project}})
        await keeper.ensure_account(account)
        await keeper.remove_account("shared")
        assert await keeper.list_accounts() == []
        assert users_of(admin, private) == {project}
    assert await site.leftovers() == []


async def test_somebody_elses_project_is_not_taken(site: OpenStackSite, admin: Client) -> None:
    async with running(site) as middleware:
        keeper: KeepsAccounts = keeps_accounts(middleware)
        taken = AccountSpec(f"{site.prefix}-tests", AccountKind.CREATED)
        with pytest.raises(AccountInUse, match="somebody else's"):
            await keeper.ensure_account(taken)
        await keeper.remove_account(taken.name)
        assert await keeper.list_accounts() == []
    assert len(projects(admin, taken.name)) == 1


async def test_over_quota_is_told_as_such(site: OpenStackSite, admin: Client) -> None:
    name = f"small-{site.site}"
    async with running(site) as middleware:
        keeper: KeepsAccounts = keeps_accounts(middleware)
        await keeper.ensure_account(AccountSpec(name, AccountKind.CREATED))
        (project,) = projects(admin, name)
        admin.put("nova", f"/v2.1/os-quota-sets/{project}", {"quota_set": {"instances": 0}})
        key = new_key()
        with pytest.raises(NoQuota, match="Quota exceeded for instances"):
            await middleware.create(key, under(name, compute(site)))
        await middleware.delete(key)
        await keeper.remove_account(name)
    assert await site.leftovers() == []
