"""`project_export`: a project's users and files, which is `SMB` and `userconfig` under one id (D51)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from fedkit.services.arrange import under
from fedkit.services.contract import NAME, Attribute, Service, Use


class ProjectExport(Service):
    """Accounts come first: files belong to them."""

    name = "project_export"
    attributes: ClassVar[Mapping[str, Attribute]] = {"project": Attribute("NAME", NAME, required=True)}

    def expand(self, use: Use) -> Iterable[Use]:
        """Into the two."""
        project = use.attributes["project"]
        return (under(use, "userconfig", project=project), under(use, "SMB", project=project))
