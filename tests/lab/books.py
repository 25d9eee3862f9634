"""What one site holds, by each of its witnesses: the lender's book, the middleware's, the container runtime, the kernel.

python -m tests.lab.books DIRECTORY     at the site, with the directory of its member; prints one JSON object
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, SOURCES, directory

LEASES = "SELECT id FROM leases WHERE state NOT IN ('released', 'failed')"


@dataclass(frozen=True)
class Books:
    """Lease ids, as each witness knows them; and how many interfaces are plugged into the bridge of the machines."""

    leases: list[str]
    instances: list[str]
    running: list[str]
    plugged: int

    @classmethod
    def of(cls, lab: Lab, site: str) -> Books:
        """Ask a site, whether its member runs or not."""
        found = lab.plan.site(site)
        command = [
            "env",
            f"PYTHONPATH={SOURCES}",
            str(PYTHON),
            "-m",
            "tests.lab.books",
            str(directory(found, "member")),
        ]
        return cls(**json.loads(lab.run(found.name, command).stdout))

    @classmethod
    def with_machines(cls, *lease_ids: str) -> Books:
        """What all witnesses should say of a site that holds these machines and nothing else."""
        ids = sorted(lease_ids)
        return cls(ids, ids, ids, len(ids))


def _look(member: Path) -> dict[str, object]:
    with sqlite3.connect(f"file:{member / 'member.db'}?mode=ro", uri=True, timeout=10) as database:
        leases = sorted(row[0] for row in database.execute(LEASES))
    machines = member / "machines"
    return {
        "leases": leases,
        "instances": sorted(os.listdir(machines / "instances")),
        "running": sorted(
            container["id"]
            for container in _json("runc", "--root", str(machines / "runc"), "list", "--format", "json") or []
            if container["status"] == "running"
        ),
        "plugged": len(_json("ip", "-json", "link", "show", "master", "machines")),
    }


def _json(*command: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout or "[]")
    return found


if __name__ == "__main__":
    print(json.dumps(_look(Path(sys.argv[1]))))
