"""The cloud's MariaDB: on a unix socket alone, with files of its own.

SQLite would need no package, but a lender is asked for several machines at once, and then it says "database is locked".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.openstack.crew import Crew, Program
from deploy.openstack.layout import DATABASES, Cloud

INSTALL = "mariadb-install-db"
SERVER = "/usr/sbin/mariadbd"
CLIENT = "mariadb"
OPTIONS = (
    "--skip-networking",
    "--user=root",  # ours, in whatever user namespace this is
    "--innodb-flush-log-at-trx-commit=2",  # a killed server loses nothing, a machine that loses its power may
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--performance-schema=off",
    "--max-connections=500",
)


def server(cloud: Cloud) -> Program:
    """The server; databases must have been made."""
    socket = cloud.socket("mysql")
    place = [f"--datadir={_files(cloud)}", f"--socket={socket}", f"--pid-file={socket.with_suffix('.pid')}"]
    return Program("mariadb", [SERVER, "--no-defaults", *place, *OPTIONS], socket)


async def make(cloud: Cloud, crew: Crew) -> None:
    """Make the server's files, start it and make empty databases."""
    how = ["--auth-root-authentication-method=normal", "--skip-test-db", "--user=root"]
    await crew.run("mariadb-install-db", [INSTALL, "--no-defaults", f"--datadir={_files(cloud)}", *how])
    await crew.start(server(cloud))
    await execute(cloud, crew, [f"CREATE DATABASE {name} CHARACTER SET utf8mb3" for name in DATABASES])


async def execute(cloud: Cloud, crew: Crew, statements: Sequence[str]) -> None:
    """Run SQL statements."""
    client = [CLIENT, "--no-defaults", f"--socket={cloud.socket('mysql')}", "--user=root"]
    await crew.run("mariadb-client", client, ";\n".join(statements) + ";\n")


async def set_addresses(cloud: Cloud, crew: Crew) -> None:
    """Let the catalogue tell this cloud's address: a template does not know it, and a state may be started at another one."""
    new = f"REGEXP_REPLACE(url, '^http://[^:/]+', 'http://{cloud.address}')"
    await execute(cloud, crew, [f"UPDATE keystone.endpoint SET url = {new}"])  # noqa: S608 - an IPv4Address


def _files(cloud: Cloud) -> Path:
    return cloud.data / "mysql"
