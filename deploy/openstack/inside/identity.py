"""Fills a new Keystone: the administrator, the users of the services, and the catalogue.

    python -m deploy.openstack.inside.identity CONFIG <JSON      {"secret", "region", "endpoints": {type: [user, url]}}

By Keystone's own managers in this process, so no server has to run and nothing goes over a network.
"""

# OpenStack is not in the environment that checks this code.
# mypy: disable-error-code="import-not-found,import-untyped,misc"

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

from keystone.cmd.bootstrap import Bootstrapper
from keystone.common import provider_api
from keystone.server import configure

KEYSTONE = provider_api.ProviderAPIs
DOMAIN = "default"


def main() -> None:
    """Read what to fill in, and do it."""
    told = json.load(sys.stdin)
    config = sys.argv.pop()  # the rest of the line would be parsed as options
    configure(config_files=[config])
    admin = bootstrap(told)
    project = _add(KEYSTONE.resource_api.create_project, name="service", domain_id=DOMAIN)
    for kind, (user, url) in told["endpoints"].items():
        if kind != "identity":
            add_service_user(user, told["secret"], project, [admin.admin_role_id, admin.service_role_id])
            add_endpoint(kind, user, url, told["region"])


def bootstrap(told: dict[str, Any]) -> Bootstrapper:
    """What `keystone-manage bootstrap` does."""
    filler = Bootstrapper()
    filler.admin_password = told["secret"]
    filler.admin_username = filler.project_name = filler.admin_role_name = "admin"
    filler.service_name = "keystone"
    filler.region_id = told["region"]
    filler.public_url = filler.internal_url = filler.admin_url = told["endpoints"]["identity"][1]
    filler.bootstrap()
    return filler


def add_service_user(name: str, secret: str, project: str, roles: list[str]) -> None:
    """A user that a service acts as, in the project of the services."""
    user = {"name": name, "password": secret, "domain_id": DOMAIN, "enabled": True}
    made = KEYSTONE.identity_api.create_user(user)["id"]
    for role in roles:
        KEYSTONE.assignment_api.add_role_to_user_and_project(made, project, role)


def add_endpoint(kind: str, name: str, url: str, region: str) -> None:
    """A service in the catalogue, with the same address for everybody."""
    service = _add(KEYSTONE.catalog_api.create_service, name=name, type=kind)
    for interface in ("public", "internal", "admin"):
        _add(KEYSTONE.catalog_api.create_endpoint, service_id=service, interface=interface, region_id=region, url=url)


def _add(create: Any, **fields: Any) -> str:
    made: str = uuid4().hex
    create(made, {"id": made, "enabled": True, **fields})
    return made


if __name__ == "__main__":
    main()
