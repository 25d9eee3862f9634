"""Where things lie inside the lab (see `deploy.lab.world`)."""

from __future__ import annotations

from pathlib import Path

from deploy.lab.topology import Site

RUN = Path("/run/fedlab")
SOURCES = RUN / "src"
ENVIRONMENT = RUN / "venv"
PYTHON = ENVIRONMENT / "bin/python"
LOGS = RUN / "log"
NOTIFY = RUN / "notify"
TEMPORARY = RUN / "tmp"
BASE = SOURCES / ".lab/base"  # root file system of lent machines; see deploy.image.build
TESTBED = SOURCES / ".lab/testbed"  # the same with what services of experiments need; where it was built
IMAGES = SOURCES / ".lab/images"  # of virtual machines; see deploy.image.guest
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # root's: an ordinary person's lacks nft(8), say
PROSODY_MODULES = SOURCES / "deploy/templates/prosody"


def directory(site: Site, kind: str) -> Path:
    """Where a service of a site keeps its configuration and data."""
    return RUN / site.name / kind
