"""When an experiment has ended no member's database has a secret of it, whatever became of it before. In virtual time."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import inspect, text

from federation_member.experiments import store
from federation_member.experiments.errors import HasEnded
from federation_member.experiments.extending import LargerDescription
from federation_member.experiments.model import NewExperiment, State
from fedkit.errors import FedError
from fedkit.node.kit.conf import read
from tests.component.experiments.test_extension import extended, lan
from tests.component.experiments.test_services import ALL, served
from tests.support.experiments import die_after, nothing_left, sites, until
from tests.support.federation import USER, Federation, Member, in_virtual_time
from tests.support.virtual_time import Crash

WORDS = re.compile(r"[A-Za-z0-9+/=]{16,}")


async def dump(*members: Member) -> str:
    """All that stands in some members' databases, but what is under way."""

    def rows(conn: Any) -> str:
        tables = inspect(conn).get_table_names()
        return "\n".join(repr(tuple(row)) for table in tables for row in conn.execute(text(f"SELECT * FROM {table}")))

    return "\n".join([await member.db.read(rows) for member in members])


async def secrets_of(*members: Member) -> set[str]:
    """A word of each text that members know of experiments and others must not; what is sealed needs a key that they do not have."""
    found: set[str] = set()
    for member in members:
        states = await member.db.read(
            lambda conn: conn.execute(text("SELECT spec, segment, tunnel_key FROM leases")).all()
        )
        for spec, state, tunnel in states:
            said, held = json.loads(spec), json.loads(state or "{}")
            found |= {
                *held.get("keys", {}).values(),
                held.get("control", ""),
                tunnel or "",
            }
            found |= {said.get("user_data", "")[-200:]}
            for conf in map(read, said.get("settings", {}).values()):
                found |= {conf.control_key, *(share.password for share in (*conf.exports, *conf.shares))}
        grants = await member.db.read(
            lambda conn: conn.execute(text("SELECT private_key FROM access_grants")).scalars().all()
        )
        found |= {key or "" for key in grants}
        keys = await member.db.read(lambda conn: conn.execute(text("SELECT private FROM experiments")).scalars().all())
        found |= {bytes(key).decode() for key in keys}
    return {max(words[:-4:-1], key=len) for secret in found if (words := WORDS.findall(secret))}


def left(secrets: set[str], found: str) -> set[str]:
    """Which of them stand there."""
    return {secret for secret in secrets if secret in found}


@pytest.mark.parametrize("hosts", [False, True])
@pytest.mark.parametrize("life", ["plain", "extended", "ends while it is extended"])
@in_virtual_time
async def test_nothing_secret_stays_in_the_books(world: Federation, hosts: bool, life: str) -> None:
    async with sites(world, "home", "away", hosts=hosts) as members:
        home, away = members
        small = lan(n0="home.test", n1="away.test")
        wish = NewExperiment(
            name="exp", description=small, services=["project_export:home.test:away.test:project=TIED"]
        )
        made, _, _ = await home.experiments.create(USER, served(*ALL, name="exp") if life == "plain" else wish)
        await until(home, "exp", State.ACTIVE)
        larger = lan(n0="home.test", n1="away.test", n2="away.test")
        if life == "extended":
            await extended(home, larger)
        elif life == "ends while it is extended":
            away.cloud.gate.clear()
            await home.experiments.extend(USER, "exp", LargerDescription(description=larger))
            await asyncio.sleep(10)
        secrets = await secrets_of(*members)
        assert len(secrets) >= 8
        assert left(secrets, await dump(*members)) == secrets
        await home.experiments.terminate(USER, "exp")
        away.cloud.gate.set()
        await until(home, made.experiment.id, State.TERMINATED)
        await nothing_left(home, away)
        assert left(secrets, await dump(*members)) == set()
        with pytest.raises(HasEnded):
            await home.db.read(lambda conn: store.key_of(conn, made.experiment.id))
        _, grant = await home.experiments.credentials(USER, made.experiment.id)
        assert grant is None


@pytest.mark.parametrize("commits", [0, 4, 9])
@pytest.mark.parametrize("victim", [0, 1])
@in_virtual_time
async def test_nor_after_one_of_them_died_in_the_middle(world: Federation, commits: int, victim: int) -> None:
    async with sites(world, "home", "away") as members:
        home, _ = members
        await home.experiments.create(USER, served(*ALL, name="exp"))
        await until(home, "exp", State.ACTIVE)
        secrets = await secrets_of(*members)
        die_after(members[victim], commits)
        with suppress(Crash, FedError):
            await home.experiments.terminate(USER, "exp")
            await asyncio.sleep(20)
        await members[victim].kill()
        await members[victim].start()
        await home.experiments.terminate(USER, "exp")
        for _ in range(1200):
            if (await home.experiments.get(USER, "exp")).experiment.state is State.TERMINATED:
                break
            await asyncio.sleep(1)
        await nothing_left(*members)
        assert left(secrets, await dump(*members)) == set()
