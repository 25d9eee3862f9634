"""The same on SQLite and PostgreSQL, in real time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from federation_member.experiments.model import State
from tests.support.databases import MISSING, Postgres
from tests.support.experiments import books_agree, line, nothing_left, sites, until
from tests.support.fake_tunnel_server import FakeTunnelServer
from tests.support.federation import USER, Federation


@pytest.fixture(params=["sqlite", "postgresql"])
def real_world(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres | None) -> Federation:
    """An empty federation in real time, on each kind of database."""
    urls: Iterator[str] | None = None
    if request.param == "postgresql":
        if postgres is None:
            pytest.skip(MISSING)
        urls = iter(postgres.migrated, "")
    return Federation(tmp_path, urls)


async def test_it_comes_up_and_goes_on_both_databases(real_world: Federation) -> None:
    async with real_world as world, sites(world, "h", "a") as (h, a):
        made, _grant, _key = await h.experiments.create(USER, line("h.test", "a.test"))
        await until(h, made.experiment.id, State.ACTIVE)
        assert [len(member.cloud.instances) for member in (h, a)] == [3, 3]
        await h.experiments.terminate(USER, "line")
        await until(h, made.experiment.id, State.TERMINATED)
        await nothing_left(h, a)


async def test_relays_on_both_databases(real_world: Federation) -> None:
    tunnels = FakeTunnelServer(real_world)
    async with real_world as world, sites(world, "h", "a", "b", tunnels=tunnels, closed=["a", "b"]) as (h, a, b):
        await h.experiments.create(USER, line("a.test", "b.test"))
        await until(h, "line", State.ACTIVE)
        assert len(tunnels.rights) == 1
        await h.kill()
        await h.start()
        await h.experiments.terminate(USER, "line")
        await until(h, "line", State.TERMINATED)
        await nothing_left(h, a, b)
        await world.settle(lambda: tunnels.rights == {})


async def test_a_lost_piece_is_had_elsewhere_on_both_databases(real_world: Federation) -> None:
    async with real_world as world, sites(world, "h", "a") as (h, a):
        await h.experiments.create(USER, line("anywhere", "a.test"))
        await until(h, "line", State.ACTIVE)
        h.cloud.lose(next(key for key, one in h.cloud.instances.items() if one.spec.name == "n0"))
        await world.settle(lambda: len(a.cloud.instances) == 6)
        await until(h, "line", State.ACTIVE)
        await h.experiments.terminate(USER, "line")
        await until(h, "line", State.TERMINATED)
        await nothing_left(h, a)
        await books_agree(h, a)
