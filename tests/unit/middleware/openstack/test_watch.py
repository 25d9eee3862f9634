"""What changes in a cloud by itself is told once, and what only looks new is not."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import pytest

from federation_member.middleware.contract import Unavailable
from federation_member.middleware.openstack.config import OpenStackConfig
from federation_member.middleware.openstack.kinds import Context
from federation_member.middleware.openstack.marks import Marks
from federation_member.middleware.openstack.servers import Server, owned
from federation_member.middleware.openstack.watch import FRESH, Changed, Watch

KEY, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
MARKS = Marks("a")


def server(
    key: str = KEY, status: str = "ACTIVE", *, tagged: bool = True, doing: str | None = None, **given: Any
) -> Server:
    tags = [MARKS.site_tag, MARKS.key_tag(key)] if tagged else []
    known = {"id": key, "status": status, "tags": tags, "updated": "2026-01-01T00:00:00Z"}
    return Server.model_validate(known | {"OS-EXT-STS:task_state": doing} | given)


class FakeCloud:
    """Answers with `servers`; remembers what it was asked."""

    account = "tests"

    def __init__(self, *servers: Server) -> None:
        self.servers, self.asked = list(servers), []  # type: ignore[var-annotated]
        self.works = True

    async def all(self, *_: Any, **query: Any) -> list[Server]:
        if not self.works:
            raise Unavailable("no")
        self.asked.append(query)
        return self.servers


@pytest.fixture
def told() -> list[str]:
    return []


def watching(changed: Changed) -> Watch:
    config = OpenStackConfig.model_validate({"site": "a", "auth_url": "http://a", "network": "n"})
    return Watch(Context(config, MARKS), changed)


@pytest.fixture
def watch(told: list[str]) -> Watch:
    return watching(lambda cloud, key: told.append(key))


async def look(watch: Watch, cloud: FakeCloud, *servers: Server) -> None:
    cloud.servers = list(servers)
    await watch.look()


async def test_a_change_is_told_once(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.follow(cloud)  # type: ignore[arg-type]
    await look(watch, cloud, server())
    assert told == []  # it runs well, and did so before
    for _ in range(2):
        await look(watch, cloud, server(status="SHUTOFF"))
    assert told == [KEY]
    await look(watch, cloud, server(status="SHUTOFF", name="renamed"))
    assert told == [KEY, KEY]
    assert "changes-since" not in cloud.asked[0]
    assert cloud.asked[1]["changes-since"] == "2025-12-31T23:59:58Z"  # by the cloud's clock


async def test_a_server_that_went_is_told_though_its_tags_went_with_it(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.follow(cloud)  # type: ignore[arg-type]
    await look(watch, cloud, server())
    for _ in range(2):
        await look(watch, cloud, server(status="DELETED", tagged=False))
    assert told == [KEY]


async def test_the_first_look_tells_what_is_not_well(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.follow(cloud)  # type: ignore[arg-type]
    await look(watch, cloud, server(), server(OTHER, "ERROR"))
    assert told == [OTHER]


async def test_what_is_being_made_is_told_when_it_is_made_even_by_the_first_look(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.begun(cloud, KEY)  # type: ignore[arg-type]
    watch.begun(cloud, OTHER)  # type: ignore[arg-type]
    await look(watch, cloud, server(), server(OTHER, "BUILD"))
    await look(watch, cloud, server(), server(OTHER, "ACTIVE"))
    assert [told[0], told[-1]] == [KEY, OTHER]


async def test_what_is_deleted_on_purpose_is_not_told(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.follow(cloud)  # type: ignore[arg-type]
    await look(watch, cloud, server())
    watch.forget(cloud, KEY)  # type: ignore[arg-type]
    await look(watch, cloud, server(status="DELETED"))
    assert told == []


async def test_a_cloud_that_does_not_answer_is_asked_again(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.follow(cloud)  # type: ignore[arg-type]
    cloud.works = False
    await look(watch, cloud, server(status="ERROR"))
    assert told == []
    cloud.works = True
    await look(watch, cloud, server(status="ERROR"))
    assert told == [KEY]


async def test_what_is_made_need_not_be_looked_for_again(watch: Watch) -> None:
    cloud = FakeCloud()
    watch.begun(cloud, KEY)  # type: ignore[arg-type]
    watch.begun(cloud, OTHER)  # type: ignore[arg-type]
    double = server(OTHER, id="another")
    await look(watch, cloud, server(), server(OTHER, "ERROR"), double)
    assert watch.known(cloud, KEY) == owned(KEY, server())  # type: ignore[arg-type]
    assert watch.known(cloud, KEY) is None  # type: ignore[arg-type]
    assert watch.known(cloud, OTHER) is None  # type: ignore[arg-type]  # of several one has to be chosen


async def test_what_is_being_made_need_not_be_looked_for_as_long_as_that_was_seen_lately(
    watch: Watch, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, ordered = FakeCloud(), owned(KEY, server(status="BUILD"))
    watch.begun(cloud, KEY, ordered)  # type: ignore[arg-type]
    assert watch.known(cloud, KEY) == ordered  # type: ignore[arg-type]
    spawning = server(status="BUILD", doing="spawning")
    await look(watch, cloud, spawning)
    assert watch.known(cloud, KEY) == owned(KEY, spawning)  # type: ignore[arg-type]
    assert told == []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + FRESH)
    assert watch.known(cloud, KEY) is None  # type: ignore[arg-type]


async def test_what_somebody_deletes_while_it_is_being_made_is_told(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.begun(cloud, KEY)  # type: ignore[arg-type]
    await look(watch, cloud, server(status="BUILD"))
    await look(watch, cloud, server(status="BUILD", doing="deleting"))
    assert told == [KEY]


async def test_what_appears_where_there_was_nothing_is_told(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.follow(cloud)  # type: ignore[arg-type]
    await look(watch, cloud)
    await look(watch, cloud, server())
    assert told == [KEY]


async def test_what_is_not_ours_and_what_has_no_sensible_time(watch: Watch, told: list[str]) -> None:
    cloud = FakeCloud()
    watch.follow(cloud)  # type: ignore[arg-type]
    await look(watch, cloud, server(updated="yesterday"))
    await look(watch, cloud, server(OTHER, "ERROR", tagged=False), server(updated=""))
    assert told == []


async def test_it_looks_by_itself_at_what_was_begun() -> None:
    told = asyncio.Event()
    watch, cloud = watching(lambda cloud, key: told.set()), FakeCloud(server(OTHER))
    watch.follow(cloud)  # type: ignore[arg-type]
    await watch.look()
    looking = asyncio.create_task(watch.run())
    watch.begun(cloud, KEY)  # type: ignore[arg-type]
    cloud.servers = [server()]
    await told.wait()
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert len(cloud.asked) == 2
