"""Databases for tests: an SQLite file, and a PostgreSQL that the test run starts for itself.

    @pytest.fixture / async def test_x(database_url): …     runs once on each (import `database_url` and `postgres` in a conftest)

The server runs as an unprivileged user on a socket in a temporary directory, with no port, and goes away with the test
run. Each test gets its own empty database. Where PostgreSQL is not installed, its half is skipped, and says so.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fedkit.migrations import upgrade
from fedkit.store import Database

FOLDERS = ("/usr/lib/postgresql/15/bin", *os.environ.get("PATH", "").split(":"))
UNPRIVILEGED = ("postgres", "nobody")
MISSING = "PostgreSQL is NOT TESTED: no initdb and postgres found (Debian: apt-get install postgresql-15)"


class Postgres:
    """A running server; `url` makes a new database and names it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._migrated: dict[str, str] = {}  # package to template

    def url(self) -> str:
        """Create an empty database and return its URL."""
        return self._create("template1")

    def migrated(self, package: str = "federation_member.migrations") -> str:
        """The same with a component's tables in it, which take a second where they are made."""
        if package not in self._migrated:
            url = self._create("template1")
            engine = Database(url).engine
            upgrade(engine, package)
            engine.dispose()  # what others are copied from is open to nobody
            self._migrated[package] = url.partition("@/")[2].partition("?")[0]
        return self._create(self._migrated[package])

    def _create(self, template: str) -> str:
        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(f"host={self._socket} user=fedmesh dbname=postgres", autocommit=True) as conn:
            conn.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return f"postgresql://fedmesh@/{name}?host={self._socket}"


def find_postgres() -> Path | None:
    """The folder with the server's programs."""
    for folder in FOLDERS:
        if all((Path(folder) / program).exists() for program in ("initdb", "postgres", "pg_ctl")):
            return Path(folder)
    return None


def _as_unprivileged() -> dict[str, int]:
    """PostgreSQL refuses to run as root: who it runs as instead."""
    if os.geteuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": account.pw_uid, "group": account.pw_gid}
    return {}


def run_postgres() -> Iterator[Postgres | None]:
    """Start a server and stop it at the end; None where there is none."""
    programs = find_postgres()
    if programs is None:
        yield None
        return
    who = _as_unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="fedmesh-pg-"))
    if who:
        os.chown(folder, who["user"], who["group"])
    data = folder / "data"
    options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c max_connections=200"
    control: list[str | Path] = [programs / "pg_ctl", "-D", data, "-w"]
    try:
        _run([programs / "initdb", "-D", data, "-U", "fedmesh", "-A", "trust", "-E", "UTF8", "--no-sync"], folder, who)
        _run([*control, "-l", folder / "log", "-o", options, "start"], folder, who)
        try:
            yield Postgres(folder)
        finally:
            _run([*control, "-m", "immediate", "stop"], folder, who)
    finally:
        shutil.rmtree(folder)


def _run(command: list[str | Path], folder: Path, who: dict[str, int]) -> None:
    """Run one of its programs; what it says goes to a file, because a server that it starts keeps what it inherits."""
    said = folder / "said"
    with said.open("w") as file:
        done = subprocess.run(command, cwd=folder, stdout=file, stderr=file, check=False, **who)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command[0]} failed:\n{said.read_text()}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres | None]:
    """The run's server."""
    yield from run_postgres()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres | None) -> str:
    """The URL of an empty database, on SQLite and on PostgreSQL in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    if postgres is None:
        pytest.skip(MISSING)
    return postgres.url()
