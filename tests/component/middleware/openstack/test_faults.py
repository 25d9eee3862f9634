"""A cloud that hangs, lies, loses answers and carries out late: in front of the real one stands a proxy that does so to chosen calls."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deploy.openstack.api import Client
from federation_member.middleware.contract import (
    Account,
    ComputeRequest,
    NoCapacity,
    NotAuthorised,
    Status,
    Unavailable,
    UnknownFlavour,
)
from fedkit.protocol.lending import AttachmentSpec, Flavour, VolumeSpec
from tests.component.middleware.contract import MAKING, compute, eventually, made, net, new_key, plain, running
from tests.component.middleware.openstack.place import PASSWORD, OpenStackSite
from tests.support.openstack_faults import (
    Fault,
    FaultyCloud,
    cut_answer,
    do_late,
    fail,
    hang,
    lose_answer,
    rewrite,
    say,
)

SERVERS = r"/servers$"
LIST = r"/servers/detail$"
HUGE = Flavour(name="unplaceable", vcpu=2, ram_mb=1 << 20, disk_gb=10)


@pytest.fixture
async def cloud(site: OpenStackSite) -> AsyncIterator[FaultyCloud]:
    """The proxy, which `site` is then reached through."""
    async with FaultyCloud(f"http://{site.openstack.address}") as cloud:
        site.extra["auth_url"] = cloud.auth_url
        yield cloud


async def test_a_lost_answer_makes_no_second_server(site: OpenStackSite, cloud: FaultyCloud) -> None:
    key = new_key()
    async with running(site) as middleware:
        with cloud.fault("POST", SERVERS, lose_answer()), pytest.raises(Unavailable):
            await middleware.create(key, compute(site))
        owned = await made(middleware, key, compute(site))
        assert len(site.servers(key)) == 1
        assert await middleware.list_owned() == [owned]
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_what_is_carried_out_late_is_one_in_the_end(site: OpenStackSite, cloud: FaultyCloud) -> None:
    key = new_key()
    async with running(site) as middleware:
        with cloud.fault("POST", SERVERS, do_late(1.0), times=1), pytest.raises(Unavailable):
            await middleware.create(key, compute(site))
        await made(middleware, key, compute(site))
        await cloud.quiet()

        async def is_one() -> bool:
            await middleware.get(key)
            return [server["status"] for server in site.servers(key)] == ["ACTIVE"]

        await eventually(is_one, MAKING)
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_what_is_carried_out_after_it_was_deleted_is_removed(site: OpenStackSite, cloud: FaultyCloud) -> None:
    key = new_key()
    async with running(site) as middleware:
        with cloud.fault("POST", SERVERS, do_late(0.5), times=1), pytest.raises(Unavailable):
            await middleware.create(key, compute(site))
        await cloud.quiet()
        assert site.servers(key)
        await middleware.delete(key)
        assert await site.leftovers() == []

        other = new_key()
        with cloud.fault("POST", r"/ports$", hang(1.0), times=1):
            work = asyncio.create_task(middleware.create(other, compute(site)))
            await eventually(lambda: any("POST" in call and call.endswith("/ports") for call in cloud.calls))
            work.cancel()
            await asyncio.wait([work])
        await cloud.quiet()
        assert {owned.key for owned in await middleware.list_owned()} <= {other}
        await middleware.delete(other)
    assert await site.leftovers() == []


async def test_a_device_that_nova_refuses_is_only_a_wish(site: OpenStackSite, cloud: FaultyCloud) -> None:
    async with running(site) as middleware:
        machine, volume = new_key(), new_key()
        await made(middleware, machine, compute(site))
        await made(middleware, volume, plain(site, VolumeSpec(size_gb=1)))
        refusal = '{"badRequest": {"code": 400, "message": "The supplied device path (/dev/vdz) is invalid."}}'
        request = plain(site, AttachmentSpec(machine=machine, volume=volume, device="/dev/vdz"))
        with cloud.fault("POST", r"/os-volume_attachments$", say(refusal, 400), times=1):
            attachment = await made(middleware, new_key(), request)
        assert attachment.instance.device not in (None, "/dev/vdz")
        for key in (attachment.key, volume, machine):
            await middleware.delete(key)
    assert await site.leftovers() == []


NONSENSE: dict[str, Fault] = {
    "server error": fail(500),
    "bad gateway": fail(502, ""),
    "cut": cut_answer(),
    "not JSON": say("{"),
    "another shape": say('{"servers": {"id": 7}}'),
    "of no type": say('{"servers": [{"id": null, "status": 7}]}'),
    "a list": say("[]"),
    "empty": say(""),
    "not text": rewrite(lambda text: text.replace('"', "\x00")),
    "without end": say(
        '{"servers": [{"id": "1", "status": "ACTIVE"}], "servers_links": [{"rel": "next", "href": "x"}]}'
    ),
    "a number of 10,000 digits": say('{"servers": [{"id": ' + "9" * 10_000 + "}]}"),
    "deep": say("[" * 100_000),
}


async def test_answers_that_make_no_sense(site: OpenStackSite, cloud: FaultyCloud) -> None:
    key = new_key()
    async with running(site) as middleware:
        for fault in NONSENSE.values():
            with cloud.fault("GET", LIST, fault):
                for call in (middleware.create(key, compute(site)), middleware.get(key), middleware.list_owned()):
                    with pytest.raises(Unavailable):
                        await call
        assert await middleware.list_owned() == []
    assert await site.leftovers() == []


STEPS = {
    "machine": [r"/security-groups$", r"/security-group-rules$", r"/ports$", SERVERS],
    "network": [r"/networks$", r"/security-groups$", r"/security-group-rules$", r"/subnets$"],
}


@pytest.mark.parametrize("what", STEPS)
async def test_every_step_may_fail_and_is_gone_on_with(site: OpenStackSite, cloud: FaultyCloud, what: str) -> None:
    key, request = new_key(), compute(site) if what == "machine" else net(site)
    async with running(site) as middleware:
        for path in STEPS[what]:
            for fault in (fail(503), cut_answer(0.2)):
                with cloud.fault("POST", path, fault, times=1), pytest.raises(Unavailable):
                    await middleware.create(key, request)
                assert {owned.key for owned in await middleware.list_owned()} <= {key}
        await made(middleware, key, request)
        assert {owned.key for owned in await middleware.list_owned()} == {key}
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_a_cloud_that_hangs_holds_nobody_for_long(site: OpenStackSite, cloud: FaultyCloud) -> None:
    site.extra |= {"connections": 3, "timeouts": {"answer": 8.0, "call": 12.0}}
    async with running(site) as middleware:
        with cloud.fault("GET", "", hang()), cloud.fault("POST", "", hang()):
            calls = [middleware.create(new_key(), compute(site)) for _ in range(12)]
            answers = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert cloud.most_at_once <= 3
        key = new_key()
        await made(middleware, key, compute(site))
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_a_token_that_is_no_longer_good_is_renewed(site: OpenStackSite, cloud: FaultyCloud) -> None:
    async with running(site) as middleware:
        with cloud.fault("GET", LIST, fail(401), times=1):
            assert await middleware.list_owned() == []


async def test_a_cloud_that_is_down_when_the_member_starts(site: OpenStackSite, cloud: FaultyCloud) -> None:
    with cloud.fault("GET", "", fail(503)), cloud.fault("POST", "", fail(503)):
        middleware = site.middleware()
        await middleware.start(lambda key: None)
        for call in (middleware.flavours(), middleware.list_owned(), middleware.create(new_key(), compute(site))):
            with pytest.raises(Unavailable):
                await call
    assert site.flavour in await middleware.flavours()
    assert {"compute", "network", "volume"} <= middleware.kinds()
    await middleware.stop()


async def test_a_wrong_password_is_told_and_a_corrected_one_read(site: OpenStackSite, tmp_path: Path) -> None:
    options = site.options
    file = tmp_path / "own"
    file.write_text("wrong")
    accounts = {name: account | {"password_file": str(file)} for name, account in options["accounts"].items()}
    site.extra |= {"accounts": accounts}
    async with running(site) as middleware:
        with pytest.raises(NotAuthorised, match="requires authentication"):
            await middleware.create(new_key(), compute(site))
        assert await middleware.list_owned() == []
        file.write_text(PASSWORD)
        key = new_key()
        await made(middleware, key, compute(site))
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_no_valid_host_is_told_in_the_clouds_words(site: OpenStackSite) -> None:
    key, request = new_key(), dataclasses.replace(compute(site), flavour=HUGE)
    async with running(site) as middleware:
        with pytest.raises(NoCapacity, match="No valid host"):
            await made(middleware, key, request)
        gone = dataclasses.replace(request, flavour=HUGE.model_copy(update={"name": "gone"}))
        with pytest.raises(UnknownFlavour, match="has no flavour gone"):
            await middleware.create(new_key(), gone)
        assert [(owned.key, owned.status) for owned in await middleware.list_owned()] == [(key, Status.FAILED)]
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_a_machine_is_untagged_and_renamed_behind_our_back(site: OpenStackSite) -> None:
    key = new_key()
    async with running(site) as middleware:
        owned = await made(middleware, key, compute(site))
        admin = Client.administrator(site.openstack)
        server = site.servers(key)[0]["id"]
        await asyncio.to_thread(site.untag, server)
        admin.put("nova", f"/v2.1/servers/{server}", {"server": {"name": "mine"}})
        assert {one.key for one in await middleware.list_owned()} == {key}
        found = await middleware.get(key)
        assert found is not None
        assert found.status is Status.RUNNING
        assert found.instance == owned.instance.model_copy(update={"name": "mine"})
        assert await middleware.list_owned() == [found]
        await asyncio.to_thread(site.untag, server)
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_two_sites_in_one_project_do_not_see_each_other(site: OpenStackSite, tmp_path: Path) -> None:
    other = OpenStackSite(site.openstack, tmp_path, site.prefix)
    key = new_key()
    async with running(site) as middleware, running(other) as neighbour:
        await made(middleware, key, compute(site))
        assert await neighbour.list_owned() == []
        assert await neighbour.get(key) is None
        await neighbour.delete(key)
        assert (await middleware.create(key, compute(site))).status is Status.RUNNING
        await middleware.delete(key)
    assert await site.leftovers() == []


async def test_an_account_that_vanished(site: OpenStackSite) -> None:
    async with running(site) as middleware:
        request: ComputeRequest = dataclasses.replace(compute(site), account=Account("gone"))
        site.extra |= {
            "accounts": site.options["accounts"] | {"gone": site.options["accounts"]["tests"] | {"project": "gone"}}
        }
    async with running(site) as middleware:
        with pytest.raises(NotAuthorised):
            await middleware.create(new_key(), request)
        assert await middleware.list_owned() == []
