"""What a cloud is made of, and in which order it starts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from deploy.openstack import config, database, hypervisor
from deploy.openstack.crew import Crew, Program
from deploy.openstack.layout import ENVIRONMENT, PORTS, PROJECT, Cloud, Profile

PLUGINS = PROJECT / "deploy/openstack/plugins"  # holds the entry point of inside/network.py
APIS = {
    "keystone": "keystone.wsgi.api",
    "placement": "placement.wsgi.api",
    "glance": "glance.wsgi.api",
    "neutron": "neutron.wsgi.api",
}
Report = Callable[[str], None]
"""Told what is there now."""


def environment(cloud: Cloud) -> dict[str, str]:
    """What every process of a cloud knows: where its configuration is, and nothing of the person who started it."""
    return {
        "PATH": f"{ENVIRONMENT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": f"{PROJECT}:{PLUGINS}",
        "PYTHONWARNINGS": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(cloud.state / "run"),
        "TMPDIR": str(cloud.state / "run"),
        "LANG": "C.UTF-8",
        "OVN_RUNDIR": str(cloud.state / "run"),
        "OVS_RUNDIR": str(cloud.state / "run"),  # where libvirt's and Nova's ovs-vsctl look for db.sock
        "OS_KEYSTONE_CONFIG_DIR": str(cloud.etc / "keystone"),
        "OS_PLACEMENT_CONFIG_DIR": str(cloud.etc / "placement"),
        "OS_GLANCE_CONFIG_DIR": str(cloud.etc / "glance"),
        "OS_NEUTRON_CONFIG_DIR": str(cloud.etc / "neutron"),
        "OS_NEUTRON_CONFIG_FILES": "neutron.conf;ml2.conf",
        "OS_NOVA_CONFIG_DIR": str(cloud.etc / "nova"),
        "OS_NOVA_CONFIG_FILES": f"{config.SHARE}/nova/api-paste.ini;nova.conf",
        "ASGI_WORKERS": "1",  # how Neutron counts its processes under a server that it does not know
    }


def write_files(cloud: Cloud) -> None:
    """Write the configuration anew, and make the directories that services expect."""
    for name in ("run", "log", "lock", "staging", "tasks", "neutron", "cinder"):
        (cloud.state / name).mkdir(parents=True, exist_ok=True)
    for name in ("images", "instances", "nova"):
        (cloud.data / name).mkdir(parents=True, exist_ok=True)
    for name, sections in config.files(cloud, cloud.secret_file.read_text()).items():
        path = cloud.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(config.render(sections))


async def start(cloud: Cloud, crew: Crew, report: Report) -> None:
    """Start all of a cloud whose data is there, and return when it is ready for a first order."""
    await crew.start(database.server(cloud))
    await database.set_addresses(cloud, crew)
    report("mariadb")
    if cloud.profile is Profile.FULL:
        await hypervisor.start(cloud, crew)
        report("switch, network controller and hypervisor")
    async with asyncio.TaskGroup() as group:
        for name in APIS:
            group.create_task(_start(crew, _api(cloud, name), report))
        for name in ("nova", "cinder"):
            group.create_task(_start(crew, _all_in_one(cloud, name), report))


async def _start(crew: Crew, program: Program, report: Report) -> None:
    await crew.start(program)
    report(program.name)


def _api(cloud: Cloud, name: str) -> Program:
    return _python(cloud, name, "serve", APIS[name])


def _all_in_one(cloud: Cloud, name: str) -> Program:
    return _python(cloud, name, name, cloud.config(name))


def _python(cloud: Cloud, name: str, module: str, argument: str | Path) -> Program:
    where = cloud.address, PORTS[name]
    command: list[str | Path] = [
        config.PYTHON,
        "-m",
        f"deploy.openstack.inside.{module}",
        argument,
        where[0],
        str(where[1]),
    ]
    return Program(name, command, where)


def in_environment(program: str, *arguments: str | Path) -> list[str | Path]:
    """The command line of a program of the environment; its first line may name a place that is hidden here."""
    return [config.PYTHON, ENVIRONMENT / "bin" / program, *arguments]


def missing(profile: Profile) -> list[str]:
    """Programs that are not there."""
    needed = [str(config.PYTHON), database.SERVER, *(hypervisor.NEEDED if profile is Profile.FULL else ())]
    return [path for path in needed if not os.access(path, os.X_OK)]
