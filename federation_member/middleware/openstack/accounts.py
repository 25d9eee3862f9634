"""Local accounts, each with a connection of its own.

A static account stands in the configuration: somebody's credentials for one project (a service user's, or a person's application
credential). A made one (`AccountKind.CREATED`) is a project in which the federation's admin user has a role: there is no secret to
keep, and the project itself says, in its tag and description, that it is ours and what it was given. So `list_accounts` is
complete after any crash, and two members in one cloud keep out of each other's projects.
"""

from __future__ import annotations

from federation_member.middleware.contract import AccountSpec, MiddlewareError, UnknownAccount
from federation_member.middleware.openstack.config import Admin, OpenStackConfig
from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.kinds import Context
from federation_member.middleware.openstack.projects import Projects
from federation_member.middleware.openstack.threads import Threads


class Accounts:
    """Every account of this site, as a `Cloud`."""

    def __init__(self, context: Context) -> None:
        self._config: OpenStackConfig = context.config
        self._threads = Threads(context.config.connections)
        self._static = {
            name: Cloud(name, credentials, context.config, self._threads)
            for name, credentials in context.config.accounts.items()
        }
        self._made: dict[str, Cloud] = {}
        self._admin: Cloud | None = None
        self._projects: Projects | None = None
        if context.config.admin is not None:
            self._admin = Cloud("", context.config.admin, context.config, self._threads)
            self._projects = Projects(self._admin, context.config.admin, context.marks)

    def close(self) -> None:
        """Let go of every connection."""
        for cloud in [*self._static.values(), *self._made.values(), *([self._admin] if self._admin else [])]:
            cloud.close()

    @property
    def static(self) -> list[Cloud]:
        """Those of the configuration."""
        return list(self._static.values())

    @property
    def first(self) -> Cloud:
        """The one that is asked what the cloud offers."""
        cloud = next(iter(self._static.values()), self._admin)
        if cloud is None:
            raise MiddlewareError("There is neither an account nor an admin in [middleware.options].")
        return cloud

    async def get(self, name: str) -> Cloud:
        """The account's connection; raises `UnknownAccount`. Another process may have removed a made one, or made it anew."""
        if name in self._static:
            return self._static[name]
        project = None if self._projects is None else await self._projects.find(name)
        if project is None:
            raise UnknownAccount(f"There is no account {name} here.")
        return self._connection(name, project.id)

    async def all(self) -> list[Cloud]:
        """Every account under which something of ours can be."""
        if self._projects is not None:
            found = {project.name: project.id for project in await self._projects.all()}
            for gone in self._made.keys() - found.keys():
                self._made[gone].close()
            self._made = {name: self._connection(name, project) for name, project in found.items()}
        return [*self._static.values(), *self._made.values()]

    def _connection(self, name: str, project: str) -> Cloud:
        admin = self._config.admin
        assert isinstance(admin, Admin)
        known = self._made.get(name)
        if known is None or known.known_project != project:
            known = self._made[name] = Cloud(name, admin, self._config, self._threads, project)
        return known

    async def ensure(self, account: AccountSpec) -> None:
        """Make it, or give the site's own what `account` says."""
        existing = self._static.get(account.name)
        await self._keeper().ensure(account, await existing.project_id() if existing else None)

    async def remove(self, name: str) -> None:
        """Undo it."""
        if self._projects is None:
            return
        existing = self._static.get(name)
        if existing is not None:
            await self._projects.withdraw(await existing.project_id())
        elif (project := await self._projects.find(name)) is not None:
            await self._projects.remove(project, self._connection(name, project.id))
            self._made.pop(name, None)

    async def given(self) -> list[AccountSpec]:
        """All that was made or given."""
        if self._projects is None:
            return []
        return await self._projects.given()

    def _keeper(self) -> Projects:
        if self._projects is None:
            raise MiddlewareError(
                "The cloud's accounts can only be made or changed by an [middleware.options.admin]; "
                "write one, or have the policy's rules name accounts that exist."
            )
        return self._projects
