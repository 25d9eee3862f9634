"""What the operator of a site's OpenStack does to it in tests, on the site's own host: `python -m tests.lab.site_cloud STATE WHAT …`.

quota NAME=NUMBER …     limits of the federation's project (-1: none)
delete-servers          as nobody asked the federation
status                  a line for each server: name and status
"""

from __future__ import annotations

import sys
from pathlib import Path

from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, SOURCES, directory
from deploy.openstack import operator, running
from deploy.openstack.api import Client


def at(lab: Lab, site: str, *what: str) -> list[str]:
    """Do it at a site of a lab, and return the lines that it printed."""
    state = str(directory(lab.plan.site(site), "lender"))
    command = ["env", f"PYTHONPATH={SOURCES}", str(PYTHON), "-m", "tests.lab.site_cloud", state, *what]
    return lab.run(site, command, timeout=120).stdout.splitlines()


def main(state: Path, what: str, *arguments: str) -> None:
    """Do it here."""
    cloud = running.cloud(state)
    account = operator.federation(cloud)
    if what == "quota":
        limits = {name: int(number) for name, number in (word.split("=") for word in arguments)}
        operator.project(cloud, account, limits=limits)
        return
    client = Client(cloud, account)
    for server in client.get("nova", "/v2.1/servers/detail")["servers"]:
        if what == "delete-servers":
            client.delete("nova", f"/v2.1/servers/{server['id']}")
        else:
            print(server["name"], server["status"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
