"""The same on SQLite and PostgreSQL, in real time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_member.experiments.model import State
from tests.support.databases import MISSING, Postgres
from tests.support.experiments import line, nothing_left, sites, until
from tests.support.federation import USER, Federation


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_it_comes_up_and_goes_on_both_databases(tmp_path: Path, postgres: Postgres | None, kind: str) -> None:
    urls: Iterator[str] | None = None
    if kind == "postgresql":
        if postgres is None:
            pytest.skip(MISSING)
        urls = iter(postgres.url, "")
    async with Federation(tmp_path, urls) as world, sites(world, "h", "a") as (h, a):
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test"))
        await until(h, made.experiment.id, State.ACTIVE)
        assert [len(member.cloud.instances) for member in (h, a)] == [3, 3]
        await h.experiments.terminate(USER, "line")
        await until(h, made.experiment.id, State.TERMINATED)
        await nothing_left(h, a)
