"""Projects that the federation makes for a grant, and what it gives to the site's own ones.

What was made or given stands in Keystone itself: the tag `fedmesh-site=SITE`, so that all can be found, and the account's
specification in the project's property `fedmesh_account`. Keystone accounts hold no ssh keys; they are kept there for the books.
`rights` are names of private flavours that the project may use.
"""

from __future__ import annotations

import asyncio
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

    kind: AccountKind
    keys: tuple[str, ...] = ()
    rights: tuple[str, ...] = ()


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

    async def given(self, static: dict[str, str]) -> list[AccountSpec]:
        """Every account that was made or given something; `static` has the names of the site's, by project."""
        specs = []
        for project in await self._marked():
            given = project.fedmesh_account
            name = static.get(project.id, project.name)
            if given is not None and (given.kind is AccountKind.CREATED or project.id in static):
                specs.append(AccountSpec(name, given.kind, given.keys, given.rights))
        return specs

    async def ensure(self, account: AccountSpec, existing: str | None) -> None:
        """Make the account as it is to be; `existing` is the project of one of the site's own."""
        given = Given(kind=account.kind, keys=account.keys, rights=account.rights)
        if account.kind is AccountKind.EXISTING:
            if existing is None:
                raise UnknownAccount(f"There is no account {account.name} in [middleware.options.accounts].")
            await self._admin.patch("identity", f"/projects/{existing}", _properties(given), Empty)
            await self._admin.put("identity", f"/projects/{existing}/tags/{self._marks.site_tag}", None, Empty)
            await self._give_rights(existing, account.rights)
            return
        if existing is not None:
            raise AccountInUse(f"The account {account.name} is the site's own and cannot be made.")
        project = await self._named(account.name)
        if project is None:
            project = await self._make(account.name, given)
        elif not self._is_made(project):
            raise AccountInUse(f"There is a project {account.name} in the cloud that is somebody else's.")
        elif project.fedmesh_account != given:
            await self._admin.patch("identity", f"/projects/{project.id}", _properties(given), Empty)
        await self._join(project.id)
        await self._give_rights(project.id, account.rights)

    async def _make(self, name: str, given: Given) -> Project:
        body = {
            "name": name,
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

    async def _give_rights(self, project: str, rights: tuple[str, ...]) -> None:
        """Let the project use exactly these private flavours, of those that the federation can give."""
        flavours = await self._admin.all("compute", "/flavors/detail", "flavors", Flavour, is_public="None", limit=1000)
        private = [flavour for flavour in flavours if not flavour.is_public]
        await asyncio.gather(*(self._set_access(flavour, project, flavour.name in rights) for flavour in private))

    async def _set_access(self, flavour: Flavour, project: str, wanted: bool) -> None:
        has = await self._admin.get("compute", f"/flavors/{flavour.id}/os-flavor-access", AccessList)
        if wanted == any(access.tenant_id == project for access in has.flavor_access):
            return
        action = "addTenantAccess" if wanted else "removeTenantAccess"
        try:
            await self._admin.post("compute", f"/flavors/{flavour.id}/action", {action: {"tenant": project}}, Empty)
        except (InConflict, NotThere):
            return  # somebody else did just that

    async def withdraw(self, project: str) -> None:
        """Take back what the site's own project was given; its mark goes last."""
        if not any(marked.id == project for marked in await self._marked()):
            return
        await self._give_rights(project, ())
        await self._admin.patch("identity", f"/projects/{project}", _properties(None), Empty)
        await self._admin.delete("identity", f"/projects/{project}/tags/{self._marks.site_tag}")

    async def remove(self, project: Project, cloud: Cloud) -> None:
        """Remove the project and what Neutron made in it by itself; raises `AccountInUse` while it holds more."""
        await self._join(project.id)
        await remove_fetched(cloud, self._marks)
        for service, path, name in HOLDINGS:
            query = {"project_id": project.id} if service == "network" else {}
            if await cloud.has(service) and await cloud.all(service, path, name, Thing, **query):
                raise AccountInUse(f"The account {project.name} still has {name} in the cloud.")
        await self._give_rights(project.id, ())
        of_project = {"project_id": project.id}
        for group in await self._admin.all("network", "/security-groups", "security_groups", Thing, **of_project):
            with suppress(StillUsed, InConflict):  # the default one, where only the cloud's operator may remove it
                await self._admin.delete("network", f"/security-groups/{group.id}")
        await self._admin.delete("identity", f"/projects/{project.id}")

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


def _properties(given: Given | None) -> dict[str, Any]:
    return {"project": {"fedmesh_account": None if given is None else given.model_dump(mode="json")}}
