"""`userconfig`: the accounts of a project, with its group and their ssh keys, on the nodes of exporter and importers (D54)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from fedkit.services.contract import NAME, Attribute, Service, Setting, Use
from fedkit.services.scene import Scene


class UserConfig(Service):
    """Accounts are alike everywhere: same names, numbers and keys."""

    name = "userconfig"
    attributes: ClassVar[Mapping[str, Attribute]] = {"project": Attribute("NAME", NAME, required=True)}

    def settings(self, use: Use, scene: Scene) -> Iterator[Setting]:
        """A group, and an account with keys for each of its people."""
        project = scene.project_of(use.attributes["project"])
        lines = [("Service", self.name), ("Group", f"{project.name} {project.gid}")]
        for account in project.accounts:
            lines.append(("Account", f"{account.name} {account.uid} {project.name}"))
            lines += [("SSHKey", f"{account.name} {key}") for key in account.keys]
        for computer in scene.computers(*use.testbeds):
            yield from (Setting(computer.name, key, value) for key, value in lines)
