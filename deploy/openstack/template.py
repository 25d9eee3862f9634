"""A ready state that new clouds are copied from: databases migrated, keys and catalogue made.

Made once for each machine and each version of what goes into it, in `.lab/openstack-template`; a first start takes half the time
then. Nothing in it depends on a cloud's address or place: the catalogue's URLs are set at every start, and cells find their
database by what Nova's own configuration says.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from deploy.openstack import config, database, programs
from deploy.openstack.crew import Crew
from deploy.openstack.layout import DATABASES, ENDPOINTS, PROJECT, REGION, Cloud

PLACE = PROJECT / ".lab/openstack-template"
HERE = Path(__file__).parent
INGREDIENTS = ("requirements.lock", "template.py", "inside/identity.py")
CELL = "{scheme}://{username}@{hostname}"  # nova fills it in from its own connection (CellMapping)


async def ensure() -> Path:
    """Return the template's directory; make it if there is none yet. Several processes may ask at once."""
    PLACE.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(repr((DATABASES, ENDPOINTS)).encode())
    for name in INGREDIENTS:
        digest.update((HERE / name).read_bytes())
    found = PLACE / digest.hexdigest()[:16]
    with (PLACE / "lock").open("w") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        if not found.exists():
            for old in PLACE.glob("*/"):
                shutil.rmtree(old)
            await _make(found)
    return found


async def _make(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fedmesh-openstack-") as folder:
        cloud = Cloud(Path(folder), "127.0.0.1")
        cloud.data.mkdir()
        cloud.secret_file.touch(mode=0o600)
        cloud.secret_file.write_text(secrets.token_hex(16))
        programs.write_files(cloud)
        crew = Crew(cloud.logs, programs.environment(cloud))
        try:
            await _fill(cloud, crew)
        finally:
            await crew.stop()
        unfinished = place.with_name("unfinished")
        shutil.copytree(cloud.data, unfinished)
        os.rename(unfinished, place)


async def _fill(cloud: Cloud, crew: Crew) -> None:
    await database.make(cloud, crew)
    async with asyncio.TaskGroup() as group:
        for service in (_keystone, _nova):
            group.create_task(service(cloud, crew))
        group.create_task(_manage(cloud, crew, "placement", "placement-manage", "db", "sync"))
        group.create_task(_manage(cloud, crew, "cinder", "cinder-manage", "db", "sync"))
        glance = ["--config-file", str(cloud.etc / "glance/glance-api.conf")]
        group.create_task(_run(crew, "glance-manage", *glance, "db_sync"))
        neutron = [f"--config-file={cloud.etc}/neutron/{name}.conf" for name in ("neutron", "ml2")]
        group.create_task(_run(crew, "neutron-db-manage", *neutron, "upgrade", "heads"))


async def _keystone(cloud: Cloud, crew: Crew) -> None:
    await _manage(cloud, crew, "keystone", "keystone-manage", "db_sync")
    for setup in ("fernet_setup", "credential_setup"):
        (cloud.data / "keystone" / setup.removesuffix("_setup")).mkdir(parents=True)
        owner = ["--keystone-user", "root", "--keystone-group", "root"]
        await _manage(cloud, crew, "keystone", "keystone-manage", setup, *owner)
    endpoints = {kind: [service, cloud.url(service, path)] for kind, (service, path) in ENDPOINTS.items()}
    told = {"secret": cloud.secret_file.read_text(), "region": REGION, "endpoints": endpoints}
    module: list[str | Path] = [config.PYTHON, "-m", "deploy.openstack.inside.identity", cloud.config("keystone")]
    await crew.run("keystone-fill", module, json.dumps(told))


async def _nova(cloud: Cloud, crew: Crew) -> None:
    await _manage(cloud, crew, "nova", "nova-manage", "api_db", "sync")
    cell0 = ["--database_connection", CELL + "/nova_cell0?{query}"]
    await _manage(cloud, crew, "nova", "nova-manage", "cell_v2", "map_cell0", *cell0)
    cell1 = ["--name", "cell1", "--database_connection", CELL + "/nova?{query}"]
    await _manage(cloud, crew, "nova", "nova-manage", "cell_v2", "create_cell", *cell1)
    await _manage(cloud, crew, "nova", "nova-manage", "db", "sync")


async def _manage(cloud: Cloud, crew: Crew, service: str, program: str, *arguments: str) -> None:
    await _run(crew, program, "--config-file", str(cloud.config(service)), *arguments)


async def _run(crew: Crew, program: str, *arguments: str) -> None:
    await crew.run(program, programs.in_environment(program, *arguments))
