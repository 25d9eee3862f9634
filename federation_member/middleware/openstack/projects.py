"""Projects that the federation makes for a grant, and what it gives to the site's own ones.

What was made or given stands in Keystone itself: the tag `fedmesh-site=SITE`, so that all can be found, and the account's
specification in the project's property `fedmesh_account`. Keystone accounts hold no ssh keys; they are kept there for the books.
`rights` are names of private flavours that the project may use meanwhile; what it could use before is not taken away.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic import BaseModel, Field

from federation_member.middleware.contract import (
    AccountInUse,
    AccountKind,
    AccountSpec,
    MiddlewareError,
    StillUsed,
    UnknownAccount,
)
from federation_member.middleware.openstack.config import Admin
from federation_member.middleware.openstack.connection import Cloud, Empty
from federation_member.middleware.openstack.errors import InConflict, NotThere
from federation_member.middleware.openstack.kinds import Described, Remembered, Thing
from federation_member.middleware.openstack.marks import Marks
from federation_member.middleware.openstack.url_images import remove_fetched

KEPT = 300.0  # seconds


class Given(BaseModel):
    """What the federation says of a project, in the project."""

    name: str
    kind: AccountKind
    keys: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()
    added: tuple[str, ...] = ()  # private flavours that it could not use before


class Project(Described):
    """As Keystone tells it."""

    domain_id: str = ""
    tags: tuple[str, ...] = ()
    fedmesh_account: Given | None = None


class OneProject(BaseModel):
    """An answer with one."""

    project: Project


class Flavour(Thing):
    """As Nova tells it; only private ones have an access list."""

    name: str
    is_public: bool = Field(default=True, alias="os-flavor-access:is_public")


class Access(BaseModel):
    """Who may use a private flavour."""

    tenant_id: str


class AccessList(BaseModel):
    """An answer of Nova's."""

    flavor_access: list[Access]


class Projects:
    """Makes, changes and removes them, as the admin."""

    def __init__(self, admin: Cloud, config: Admin, marks: Marks) -> None:
        self._admin, self._config, self._marks = admin, config, marks
        self._domain = Remembered(self._look_for_domain, KEPT)

    async def find(self, name: str) -> Project | None:
        """The project of a made account."""
        project = await self._named(name)
        return project if project is not None and self._is_made(project) else None

    async def all(self) -> list[Project]:
        """Those of made accounts."""
        return [project for project in await self._marked() if self._is_made(project)]

    async def given(self) -> list[AccountSpec]:
        """Every account that was made or given something."""
        every = [project.fedmesh_account for project in await self._marked()]
        return [AccountSpec(one.name, one.kind, one.keys, one.rights) for one in every if one is not None]

    async def ensure(self, account: AccountSpec, existing: str | None) -> None:
        """Make the account as it is to be; `existing` is the project of one of the site's own."""
        if account.kind is AccountKind.EXISTING:
            if existing is None:
                raise UnknownAccount(f"There is no account {account.name} in [middleware.options.accounts].")
            await self._give(await self._show(existing), account)
            return
        if existing is not None:
            raise AccountInUse(f"The account {account.name} is the site's own and cannot be made.")
        project = await self._named(account.name)
        if project is None:
            project = await self._make(account)
        elif not self._is_made(project):
            raise AccountInUse(f"There is a project {account.name} in the cloud that is somebody else's.")
        await self._join(project.id)
        await self._give(project, account)

    async def _give(self, project: Project, account: AccountSpec) -> None:
        """Write down what is given, then give it."""
        before = project.fedmesh_account
        added_before = frozenset() if before is None else frozenset(before.added)
        wanted = await self._private_flavours(frozenset(account.rights))
        missing = {name for name, flavour in wanted.items() if not await self._may_use(project.id, flavour)}
        added = sorted(missing | (added_before & wanted.keys()))
        given = Given(
            name=account.name, kind=account.kind, keys=account.keys, rights=account.rights, added=tuple(added)
        )
        if given != before:
            await self._write(project, {*project.tags, self._marks.site_tag}, given)
        for name in sorted(missing):
            await self._change_access("addTenantAccess", wanted[name], project.id)
        await self._take(project.id, added_before - wanted.keys())

    async def _take(self, project: str, names: frozenset[str]) -> None:
        """Take back the private flavours of these names."""
        for flavour in (await self._private_flavours(names)).values():
            await self._change_access("removeTenantAccess", flavour, project)

    async def _write(self, project: Project, tags: set[str], given: Given | None) -> None:
        told = None if given is None else given.model_dump(mode="json")
        body = {"project": {"tags": sorted(tags), "fedmesh_account": told}}
        await self._admin.patch("identity", f"/projects/{project.id}", body, Empty)

    async def _make(self, account: AccountSpec) -> Project:
        given = Given(name=account.name, kind=account.kind, keys=account.keys, rights=account.rights)
        body = {
            "name": account.name,
            "domain_id": await self._domain.get(self._admin),
            "description": f"made by the federation at {self._marks.site} for as long as it is granted",
            "tags": [self._marks.site_tag],
            "fedmesh_account": given.model_dump(mode="json"),
        }
        return (await self._admin.post("identity", "/projects", {"project": body}, OneProject)).project

    async def _join(self, project: str) -> None:
        """Give the admin's user the role there, so that the federation can work in it without any new secret."""
        roles = await self._admin.all("identity", "/roles", "roles", Described, name=self._config.role)
        if not roles:
            raise MiddlewareError(f"The cloud has no role {self._config.role}; correct [middleware.options.admin].")
        path = f"/projects/{project}/users/{await self._admin.user_id()}/roles/{roles[0].id}"
        await self._admin.put("identity", path, None, Empty)

    async def _private_flavours(self, names: frozenset[str]) -> dict[str, Flavour]:
        """Those of these names; public ones need no right."""
        if not names:
            return {}
        flavours = await self._admin.all("compute", "/flavors/detail", "flavors", Flavour, is_public="None", limit=1000)
        return {flavour.name: flavour for flavour in flavours if not flavour.is_public and flavour.name in names}

    async def _may_use(self, project: str, flavour: Flavour) -> bool:
        found = await self._admin.get("compute", f"/flavors/{flavour.id}/os-flavor-access", AccessList)
        return any(access.tenant_id == project for access in found.flavor_access)

    async def _change_access(self, action: str, flavour: Flavour, project: str) -> None:
        with suppress(InConflict, NotThere):  # somebody else did just that
            await self._admin.post("compute", f"/flavors/{flavour.id}/action", {action: {"tenant": project}}, Empty)

    async def withdraw(self, project_id: str) -> None:
        """Take back what the site's own project was given; its mark goes last."""
        project = await self._show(project_id)
        if project.fedmesh_account is None or self._marks.site_tag not in project.tags:
            return
        await self._take(project.id, frozenset(project.fedmesh_account.added))
        await self._write(project, {*project.tags} - {self._marks.site_tag}, None)

    async def remove(self, project: Project, cloud: Cloud) -> None:
        """Remove the project and what Neutron made in it by itself; raises `AccountInUse` while it holds more."""
        await self._join(project.id)
        await remove_fetched(cloud, self._marks)
        for service, path, name in HOLDINGS:
            query = {"project_id": project.id} if service == "network" else {}
            if await cloud.has(service) and await cloud.all(service, path, name, Thing, **query):
                raise AccountInUse(f"The account {project.name} still has {name} in the cloud.")
        await self._take(project.id, frozenset(project.fedmesh_account.added if project.fedmesh_account else ()))
        of_project = {"project_id": project.id}
        for group in await self._admin.all("network", "/security-groups", "security_groups", Thing, **of_project):
            with suppress(StillUsed, InConflict):  # the default one, where only the cloud's operator may remove it
                await self._admin.delete("network", f"/security-groups/{group.id}")
        await self._admin.delete("identity", f"/projects/{project.id}")

    async def _show(self, project: str) -> Project:
        return (await self._admin.get("identity", f"/projects/{project}", OneProject)).project

    async def _marked(self) -> list[Project]:
        return await self._admin.all("identity", "/projects", "projects", Project, tags=self._marks.site_tag)

    async def _named(self, name: str) -> Project | None:
        domain = await self._domain.get(self._admin)
        found = await self._admin.all("identity", "/projects", "projects", Project, name=name, domain_id=domain)
        return next(iter(found), None)

    def _is_made(self, project: Project) -> bool:
        given = project.fedmesh_account
        return self._marks.site_tag in project.tags and given is not None and given.kind is AccountKind.CREATED

    async def _look_for_domain(self, admin: Cloud) -> str:
        domains = await admin.all("identity", "/domains", "domains", Described)
        for domain in domains:
            if self._config.domain in (domain.id, domain.name):
                return domain.id
        raise MiddlewareError(f"The cloud has no domain {self._config.domain}; correct [middleware.options.admin].")


HOLDINGS: tuple[Any, ...] = (
    ("compute", "/servers", "servers"),
    ("block_storage", "/volumes", "volumes"),
    ("network", "/floatingips", "floatingips"),
    ("network", "/routers", "routers"),
    ("network", "/networks", "networks"),
    ("network", "/ports", "ports"),
)
