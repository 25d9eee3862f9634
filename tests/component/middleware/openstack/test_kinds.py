"""What the `openstack` kind does beyond the contract: volumes, attachments, public addresses, rules, snapshots and images from URLs,
with a real OpenStack that somebody else changes too, and a network that loses answers on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from deploy.openstack.api import Client
from federation_member.middleware.contract import (
    MiddlewareError,
    NoQuota,
    PlainRequest,
    Status,
    StillUsed,
    Unavailable,
    UnknownImage,
    UnusableImage,
    UnusableSpec,
)
from federation_member.middleware.openstack import OpenStackMiddleware
from fedkit.protocol.lending import (
    SNAPSHOT,
    AttachmentSpec,
    NetworkSpec,
    PublicIpSpec,
    SecurityRule,
    SnapshotSpec,
    VolumeSpec,
)
from tests.component.middleware.contract import a_machine, compute, eventually, keys_of, made, new_key, plain, running
from tests.component.middleware.images.conftest import GOOD, sha256
from tests.component.middleware.images.servers import Server, file, serving
from tests.component.middleware.openstack.place import OpenStackSite, login
from tests.support.openstack_faults import Fault, FaultyCloud, cut_answer, fail, lose_answer, say

HTTPS = SecurityRule(ports=(443, 443), cidr="192.0.2.0/24")


class Books:
    """What the cloud's operator sees of the site, by name of the list."""

    def __init__(self, site: OpenStackSite) -> None:
        self._site, self._admin = site, Client.administrator(site.openstack)

    def volumes(self) -> list[dict[str, Any]]:
        """Of Cinder."""
        return self._ours("cinder", f"/v3/{self._admin.project}/volumes/detail?all_tenants=1", "volumes")

    def change_volume(self, volume: dict[str, Any], **fields: Any) -> None:
        """As its owner could."""
        self._admin.put("cinder", f"/v3/{self._admin.project}/volumes/{volume['id']}", {"volume": fields})

    def clear_metadata(self, volume: dict[str, Any]) -> None:
        """As its owner could."""
        self._admin.put("cinder", f"/v3/{self._admin.project}/volumes/{volume['id']}/metadata", {"metadata": {}})

    def break_volume(self, volume: dict[str, Any]) -> None:
        """As a backend could."""
        body = {"os-reset_status": {"status": "error"}}
        self._admin.post("cinder", f"/v3/{self._admin.project}/volumes/{volume['id']}/action", body)

    def detach(self, volume: dict[str, Any]) -> None:
        """As the machine's owner could."""
        server = volume["attachments"][0]["server_id"]
        self._admin.delete("nova", f"/v2.1/servers/{server}/os-volume_attachments/{volume['id']}")

    def groups(self) -> list[dict[str, Any]]:
        """Of Neutron, those of orders."""
        groups = self._ours("neutron", "/v2.0/security-groups", "security_groups")
        return [group for group in groups if group["name"] != "fedmesh machines"]

    def rules(self) -> set[tuple[Any, ...]]:
        """What comes in by the one group of an order."""
        (group,) = self.groups()
        return {
            (rule["ethertype"], rule["protocol"], rule["port_range_min"], rule["remote_ip_prefix"])
            for rule in group["security_group_rules"]
            if rule["direction"] == "ingress" and rule["remote_group_id"] is None
        }

    def ports(self, key: str) -> list[dict[str, Any]]:
        """Of Neutron, those of a machine."""
        return [port for port in self._ours("neutron", "/v2.0/ports", "ports") if key in port["description"]]

    def floating_ips(self) -> list[dict[str, Any]]:
        """Of Neutron."""
        return self._ours("neutron", "/v2.0/floatingips", "floatingips")

    def images(self) -> list[dict[str, Any]]:
        """Of Glance."""
        return self._ours("glance", "/v2/images?limit=1000", "images")

    def limit(self, service: str, path: str, body: Any) -> None:
        """Set a quota of the project of the tests."""
        projects = self._admin.get("keystone", f"/v3/projects?name={self._site.prefix}-tests")["projects"]
        self._admin.put(service, path.format(projects[0]["id"]), body)

    def _ours(self, service: str, path: str, name: str) -> list[dict[str, Any]]:
        return [thing for thing in self._admin.get(service, path)[name] if self._site.site in repr(thing)]


@pytest.fixture
def books(site: OpenStackSite) -> Books:
    """Of the site."""
    return Books(site)


@asynccontextmanager
async def at(site: OpenStackSite, **extra: Any) -> AsyncIterator[OpenStackMiddleware]:
    """A started middleware whose options have `extra`."""
    site.extra |= extra
    async with running(site) as middleware:
        assert isinstance(middleware, OpenStackMiddleware)
        yield middleware


@asynccontextmanager
async def behind_faults(site: OpenStackSite, **extra: Any) -> AsyncIterator[tuple[OpenStackMiddleware, FaultyCloud]]:
    """The same, with a network that loses what a test says."""
    async with FaultyCloud(f"http://{site.openstack.address}") as faults:
        async with at(site, auth_url=faults.auth_url, **extra) as middleware:
            yield middleware, faults
        del site.extra["auth_url"]


async def volume_of(middleware: OpenStackMiddleware, site: OpenStackSite) -> str:
    """A new volume."""
    return (await made(middleware, new_key(), plain(site, VolumeSpec(size_gb=1)))).key


async def attached(middleware: OpenStackMiddleware, site: OpenStackSite) -> tuple[str, str, PlainRequest, str]:
    """A machine, a volume, the order that joins them, and its key."""
    machine = (await a_machine(middleware, site)).key
    volume = await volume_of(middleware, site)
    request = plain(site, AttachmentSpec(machine=machine, volume=volume))
    return machine, volume, request, (await made(middleware, new_key(), request)).key


class TestVolumes:
    """Cinder's."""

    async def test_one_that_lost_its_metadata_is_known_by_its_description(
        self, site: OpenStackSite, books: Books
    ) -> None:
        async with at(site) as middleware:
            key = await volume_of(middleware, site)
            books.clear_metadata(books.volumes()[0])
            books.change_volume(books.volumes()[0], name="mine")
            assert await keys_of(middleware) == {key}
            await middleware.delete(key)
        assert await site.leftovers() == []

    async def test_over_quota_it_is_refused_in_cinders_words(self, site: OpenStackSite, books: Books) -> None:
        quota = "/v3/os-quota-sets/{}"
        books.limit("cinder", quota, {"quota_set": {"volumes": 0}})
        try:
            async with at(site) as middleware:
                with pytest.raises(NoQuota, match=r"(?i)volume"):
                    await volume_of(middleware, site)
                assert await middleware.list_owned() == []
        finally:
            books.limit("cinder", quota, {"quota_set": {"volumes": -1}})

    async def test_one_that_failed_says_so_and_can_be_deleted(self, site: OpenStackSite, books: Books) -> None:
        async with at(site) as middleware:
            key = await volume_of(middleware, site)
            books.break_volume(books.volumes()[0])
            owned = await middleware.get(key)
            assert owned is not None
            assert (owned.status, "error" in owned.reason) == (Status.FAILED, True)
            with pytest.raises(MiddlewareError):
                await middleware.create(key, plain(site, VolumeSpec(size_gb=1)))
            await middleware.delete(key)
        assert await site.leftovers() == []

    async def test_one_in_use_stays(self, site: OpenStackSite) -> None:
        async with at(site) as middleware:
            machine, volume, _, attachment = await attached(middleware, site)
            with pytest.raises(StillUsed, match=r"(?i)in-use|available|attached"):
                await middleware.delete(volume)
            for key in (attachment, volume, machine):
                await middleware.delete(key)
        assert await site.leftovers() == []


class TestAttachments:
    """Volumes in machines."""

    async def test_one_that_somebody_detached_says_so_and_is_made_again(
        self, site: OpenStackSite, books: Books
    ) -> None:
        async with at(site) as middleware:
            machine, volume, request, key = await attached(middleware, site)
            books.detach(books.volumes()[0])
            await eventually(lambda: _is(middleware, key, Status.FAILED))
            owned = await middleware.get(key)
            assert owned is not None
            assert "not attached" in owned.reason
            assert (await made(middleware, key, request)).status is Status.RUNNING
            for one in (key, volume, machine):
                await middleware.delete(one)
        assert await site.leftovers() == []

    async def test_a_volume_is_attached_once(self, site: OpenStackSite) -> None:
        async with at(site) as middleware:
            machine, volume, request, key = await attached(middleware, site)
            with pytest.raises(StillUsed, match=key):
                await middleware.create(new_key(), request)
            for one in (key, volume, machine):
                await middleware.delete(one)

    async def test_two_at_the_same_moment_are_one(self, site: OpenStackSite) -> None:
        async with at(site) as middleware:
            machine = (await a_machine(middleware, site)).key
            volume = await volume_of(middleware, site)
            request = plain(site, AttachmentSpec(machine=machine, volume=volume))
            keys = [new_key() for _ in range(3)]
            outcomes = await asyncio.gather(*(made(middleware, key, request) for key in keys), return_exceptions=True)
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Owned", "StillUsed", "StillUsed"]
            for key in (*keys, volume, machine):
                await middleware.delete(key)

    @pytest.mark.parametrize("what", ["machine", "volume"])
    async def test_what_is_not_there_cannot_be_attached(self, site: OpenStackSite, what: str) -> None:
        async with at(site) as middleware:
            machine = (await a_machine(middleware, site)).key if what == "volume" else new_key()
            volume = await volume_of(middleware, site) if what == "machine" else new_key()
            with pytest.raises(UnusableSpec, match=f"no {what}"):
                await middleware.create(new_key(), plain(site, AttachmentSpec(machine=machine, volume=volume)))
            assert len(await middleware.list_owned()) == 1


class TestPublicAddresses:
    """Floating IPs and what comes in by them."""

    async def test_the_rules_are_those_of_the_order_and_then_those_that_are_set(
        self, site: OpenStackSite, books: Books
    ) -> None:
        async with at(site) as middleware:
            machine = (await a_machine(middleware, site)).key
            address = await made(middleware, new_key(), plain(site, PublicIpSpec(machine=machine, rules=[HTTPS])))
            assert books.rules() == {("IPv4", "tcp", 443, "192.0.2.0/24")}
            assert [one["floating_ip_address"] for one in books.floating_ips()] == [address.instance.public_address]
            for _ in range(2):
                await middleware.set_rules(address.key, [SecurityRule(protocol="icmp")])
                assert books.rules() == {("IPv4", "icmp", None, None), ("IPv6", "ipv6-icmp", None, None)}
            await middleware.set_rules(address.key, [])
            assert books.rules() == set()
            await middleware.delete(address.key)
            assert books.groups() == []
            assert len(books.ports(machine)[0]["security_groups"]) == 1
            await middleware.delete(machine)
        assert await site.leftovers() == []

    async def test_two_on_one_machine_keep_their_own_rules(self, site: OpenStackSite, books: Books) -> None:
        """The second finds no free address of the machine; what was made for it is named and removed."""
        async with at(site) as middleware:
            machine = (await a_machine(middleware, site)).key
            first, second = new_key(), new_key()
            await made(middleware, first, plain(site, PublicIpSpec(machine=machine)))
            with pytest.raises(UnusableSpec):
                await made(middleware, second, plain(site, PublicIpSpec(machine=machine, rules=[HTTPS])))
            assert second in await keys_of(middleware)
            await middleware.delete(second)
            assert await keys_of(middleware) == {machine, first}
            assert len(books.ports(machine)[0]["security_groups"]) == 2
            for key in (first, machine):
                await middleware.delete(key)
        assert await site.leftovers() == []

    async def test_without_its_machine_it_says_so(self, site: OpenStackSite) -> None:
        async with at(site) as middleware:
            machine = (await a_machine(middleware, site)).key
            address = await made(middleware, new_key(), plain(site, PublicIpSpec(machine=machine)))
            await middleware.delete(machine)
            left = await middleware.get(address.key)
            assert left is not None
            assert (left.status, "gone" in left.reason) == (Status.FAILED, True)
            await middleware.delete(address.key)
        assert await site.leftovers() == []

    async def test_over_quota_it_is_refused_and_what_is_left_is_named(self, site: OpenStackSite, books: Books) -> None:
        quota = "/v2.0/quotas/{}"
        books.limit("neutron", quota, {"quota": {"floatingip": 0}})
        try:
            async with at(site) as middleware:
                machine, key = (await a_machine(middleware, site)).key, new_key()
                with pytest.raises(NoQuota, match="floatingip"):
                    await middleware.create(key, plain(site, PublicIpSpec(machine=machine)))
                assert await keys_of(middleware) == {machine, key}
                for one in (key, machine):
                    await middleware.delete(one)
        finally:
            books.limit("neutron", quota, {"quota": {"floatingip": -1}})
        assert await site.leftovers() == []


class TestNetworks:
    """Security groups of ordered networks."""

    async def test_machines_in_it_have_its_rules(self, site: OpenStackSite, books: Books) -> None:
        async with at(site) as middleware:
            network = new_key()
            await made(middleware, network, plain(site, NetworkSpec(cidr="10.8.0.0/24", rules=[HTTPS])))
            machine = (await made(middleware, new_key(), compute(site, networks=(network,)))).key
            (group,) = books.groups()
            inside = [port for port in books.ports(machine) if group["id"] in port["security_groups"]]
            assert [len(port["security_groups"]) for port in inside] == [1]
            assert books.rules() == {("IPv4", "tcp", 443, "192.0.2.0/24")}
            await middleware.set_rules(network, [])
            assert books.rules() == set()
            assert any(rule["remote_group_id"] == group["id"] for rule in books.groups()[0]["security_group_rules"])
            for key in (machine, network):
                await middleware.delete(key)
        assert await site.leftovers() == []

    async def test_rules_of_what_is_not_there(self, site: OpenStackSite) -> None:
        async with at(site) as middleware:
            volume = await volume_of(middleware, site)
            for key in (new_key(), volume):
                with pytest.raises(UnusableSpec):
                    await middleware.set_rules(key, [HTTPS])


NONSENSE = [
    say("{}"),
    say('{"volumes": 7, "images": 7, "floatingips": 7, "security_groups": 7}'),
    say('{"volumes": [{"id": 5}], "images": [{}], "floatingips": [{}], "security_groups": [{}]}'),
    say("not JSON"),
    say("[" * 100_000),
    fail(500),
    cut_answer(),
]


class TestLostAnswers:
    """The cloud did it, and nobody heard of it."""

    async def test_a_volume_is_made_once(self, site: OpenStackSite, books: Books) -> None:
        async with behind_faults(site) as (middleware, faults):
            request, key = plain(site, VolumeSpec(size_gb=1)), new_key()
            await _fails_first(faults, "POST", r"/volumes$", lambda: middleware.create(key, request))
            await made(middleware, key, request)
            assert len(books.volumes()) == 1
            with faults.fault("DELETE", r"/volumes/", lose_answer(), times=1):
                await _again(lambda: middleware.delete(key))
        assert await site.leftovers() == []

    async def test_an_attachment_is_made_once(self, site: OpenStackSite, books: Books) -> None:
        async with behind_faults(site) as (middleware, faults):
            machine, volume = (await a_machine(middleware, site)).key, await volume_of(middleware, site)
            request, key = plain(site, AttachmentSpec(machine=machine, volume=volume)), new_key()
            await _fails_first(faults, "POST", r"/metadata$", lambda: middleware.create(key, request))
            assert key in await keys_of(middleware)
            await _fails_first(faults, "POST", r"/os-volume_attachments$", lambda: middleware.create(key, request))
            await made(middleware, key, request)
            assert len(books.volumes()[0]["attachments"]) == 1
            for path in (r"/os-volume_attachments/", r"/metadata/"):
                with faults.fault("DELETE", path, lose_answer(), times=1):
                    await _again(lambda: middleware.delete(key))
            for one in (volume, machine):
                await middleware.delete(one)
        assert await site.leftovers() == []

    async def test_a_public_address_is_made_once(self, site: OpenStackSite, books: Books) -> None:
        async with behind_faults(site) as (middleware, faults):
            machine, key = (await a_machine(middleware, site)).key, new_key()
            request = plain(site, PublicIpSpec(machine=machine))
            for method, path in (
                ("POST", r"/security-groups$"),
                ("POST", r"/security-group-rules$"),
                ("PUT", r"/ports/"),
                ("POST", r"/floatingips$"),
            ):
                await _fails_first(faults, method, path, lambda: middleware.create(key, request))
                assert key in await keys_of(middleware)
            await made(middleware, key, request)
            assert (len(books.floating_ips()), len(books.groups())) == (1, 1)
            for method, path in (("DELETE", r"/floatingips/"), ("PUT", r"/ports/"), ("DELETE", r"/security-groups/")):
                with faults.fault(method, path, lose_answer(), times=1):
                    await _again(lambda: middleware.delete(key))
            await middleware.delete(machine)
        assert await site.leftovers() == []

    async def test_a_snapshot_is_made_once(self, site: OpenStackSite, books: Books) -> None:
        async with behind_faults(site) as (middleware, faults):
            machine, key = (await a_machine(middleware, site)).key, new_key()
            request = plain(site, SnapshotSpec(machine=machine))
            await _fails_first(faults, "POST", r"/action$", lambda: middleware.create(key, request))
            await made(middleware, key, request)
            assert len(books.images()) == 1
            for one in (key, machine):
                await middleware.delete(one)
        assert await site.leftovers() == []

    @pytest.mark.parametrize("path", [r"/volumes/detail", r"/images$", r"/floatingips$", r"/security-groups$"])
    async def test_a_list_that_makes_no_sense_is_not_taken_for_an_empty_one(
        self, site: OpenStackSite, path: str
    ) -> None:
        async with behind_faults(site) as (middleware, faults):
            for fault in NONSENSE:
                with faults.fault("GET", path, fault), pytest.raises(Unavailable):
                    await middleware.list_owned()


class TestSnapshots:
    """Images of machines."""

    async def test_it_cannot_be_ordered_by_its_name_or_id(self, site: OpenStackSite, books: Books) -> None:
        async with at(site) as middleware:
            machine = (await a_machine(middleware, site)).key
            snapshot = (
                await made(middleware, new_key(), plain(site, SnapshotSpec(machine=machine, name="secret")))
            ).key
            assert "secret" not in {image.name for image in await middleware.images()}
            for name in ("secret", books.images()[0]["id"], SNAPSHOT + new_key()):
                with pytest.raises(UnknownImage):
                    await middleware.create(new_key(), compute(site, image=name))
            for key in (snapshot, machine):
                await middleware.delete(key)
        assert await site.leftovers() == []

    async def test_an_image_that_somebody_made_of_our_copy_is_not_ours(self, site: OpenStackSite, books: Books) -> None:
        """Nova passes our marks on to it."""
        async with at(site) as middleware:
            machine = (await a_machine(middleware, site)).key
            snapshot = (await made(middleware, new_key(), plain(site, SnapshotSpec(machine=machine)))).key
            copy = (await made(middleware, new_key(), compute(site, image=SNAPSHOT + snapshot))).key
            admin = Client.administrator(site.openstack)
            (server,) = site.servers(copy)
            admin.post("nova", f"/v2.1/servers/{server['id']}/action", {"createImage": {"name": "theirs"}})
            await eventually(lambda: [one["status"] for one in books.images() if one["name"] == "theirs"] == ["active"])
            (theirs,) = (one for one in books.images() if one["name"] == "theirs")
            assert theirs["fedmesh_key"] == snapshot
            await middleware.delete(snapshot)
            assert await keys_of(middleware) == {machine, copy}
            assert [one["id"] for one in books.images()] == [theirs["id"]]
            admin.delete("glance", f"/v2/images/{theirs['id']}")


class TestImagesFromUrls:
    """Fetched once, handed over once, shared."""

    @pytest.fixture
    async def server(self) -> AsyncIterator[Server]:
        """A server with an image."""
        async with serving() as server:
            server.answers["/good"] = file(GOOD)
            yield server

    def options(self, site: OpenStackSite, server: Server) -> dict[str, Any]:
        """That let images be fetched from the server."""
        images = {"folder": str(site.folder / "images"), "allow": ["127.0.0.1/32"], "ports": [server.port], "spare": 0}
        return {"images_from_urls": images}

    async def test_orders_share_one_image(self, site: OpenStackSite, books: Books, server: Server) -> None:
        async with at(site, **self.options(site, server)) as middleware:
            assert middleware.fetches_images
            order = compute(site, image=server.url("/good"), image_sha256=sha256(GOOD))
            machines = await asyncio.gather(*(made(middleware, new_key(), order) for _ in range(2)))
            again = await made(middleware, new_key(), order)
            (image,) = books.images()
            used = {site.servers(machine.key)[0]["image"]["id"] for machine in (*machines, again)}
            assert used == {image["id"]}
            assert (image["size"], image["disk_format"], image["min_disk"]) == (len(GOOD), "qcow2", 1)
            assert len(server.requests) == 1
            assert await keys_of(middleware) == {machine.key for machine in (*machines, again)}, "it is no order"
            with pytest.raises(UnknownImage):
                await middleware.create(new_key(), compute(site, image=image["id"]))
            for machine in (*machines, again):
                await middleware.delete(machine.key)
            await _forget_images(middleware)
        assert await site.leftovers() == []

    async def test_what_is_no_image_is_refused_and_leaves_nothing(self, site: OpenStackSite, server: Server) -> None:
        server.answers["/page"] = file(b"<!DOCTYPE html><html>")
        async with at(site, **self.options(site, server)) as middleware:
            with pytest.raises(UnusableImage, match="an HTML page"):
                await made(middleware, new_key(), compute(site, image=server.url("/page"), image_sha256=sha256(GOOD)))
            assert await middleware.list_owned() == []
        assert await site.leftovers() == []

    async def test_without_the_option_it_is_refused(self, site: OpenStackSite, server: Server) -> None:
        async with at(site) as middleware:
            assert not middleware.fetches_images
            with pytest.raises(UnusableSpec, match="not fetched from URLs"):
                await middleware.create(new_key(), compute(site, image=server.url("/good"), image_sha256=sha256(GOOD)))

    @pytest.mark.parametrize("fault", [pytest.param(fail(500), id="500"), pytest.param(lose_answer(), id="lost")])
    async def test_an_upload_that_failed_leaves_nothing_broken(
        self, site: OpenStackSite, books: Books, server: Server, fault: Fault, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("federation_member.middleware.openstack.url_images.FORGET", 0.0)
        async with behind_faults(site, **self.options(site, server)) as (middleware, faults):
            order, key = compute(site, image=server.url("/good"), image_sha256=sha256(GOOD)), new_key()
            with faults.fault("PUT", r"/file$", fault, times=1), pytest.raises(Unavailable):
                await made(middleware, key, order)
            await made(middleware, key, order)
            assert [image["status"] for image in books.images()] == ["active"]
            assert len(server.requests) == 1
            await middleware.delete(key)
            await _forget_images(middleware)
        assert await site.leftovers() == []

    async def test_a_half_uploaded_image_of_a_crash_is_replaced(
        self, site: OpenStackSite, books: Books, server: Server
    ) -> None:
        async with at(site, **self.options(site, server)) as middleware:
            project = Client(site.openstack, login(site.prefix, "tests"))
            tags = [f"fedmesh-site={site.site}", f"fedmesh-sha256={sha256(GOOD)}"]
            body = {"name": "half", "tags": tags, "disk_format": "qcow2", "container_format": "bare"}
            half = project.post("glance", "/v2/images", body)["id"]
            order = compute(site, image=server.url("/good"), image_sha256=sha256(GOOD))
            machine = await made(middleware, new_key(), order)
            (image,) = books.images()
            assert (image["id"] == half, image["status"]) == (False, "active")
            await middleware.delete(machine.key)
            await _forget_images(middleware)
        assert await site.leftovers() == []

    async def test_one_that_is_unused_for_long_goes_but_not_under_a_machine(
        self, site: OpenStackSite, books: Books, server: Server
    ) -> None:
        async with at(site, **self.options(site, server)) as middleware:
            machine = await made(
                middleware, new_key(), compute(site, image=server.url("/good"), image_sha256=sha256(GOOD))
            )
            await _tidy(middleware, timedelta())
            await _tidy(middleware, timedelta(days=30))
            assert len(books.images()) == 1
            await middleware.delete(machine.key)
            await _tidy(middleware, timedelta())
            assert len(books.images()) == 1
            await _tidy(middleware, timedelta(days=30))
            assert books.images() == []


async def _is(middleware: OpenStackMiddleware, key: str, status: Status) -> bool:
    owned = await middleware.get(key)
    return owned is not None and owned.status is status


async def _fails_first(faults: FaultyCloud, method: str, path: str, call: Callable[[], Any]) -> None:
    """The cloud carries the call out, and its answer is lost."""
    with faults.fault(method, path, lose_answer(), times=1), pytest.raises(Unavailable):
        await call()


async def _again(call: Callable[[], Any]) -> None:
    """As the keeper does: again, when the cloud could not be reached."""
    try:
        await call()
    except Unavailable:
        await call()


async def _tidy(middleware: OpenStackMiddleware, later: timedelta) -> None:
    """Let the middleware remove what is unused, `later` from now."""
    images = middleware._images
    assert images._urls is not None
    images._urls._clock = lambda: datetime.now(UTC) + later
    for cloud in await middleware._accounts.all():
        await images.tidy(cloud)


async def _forget_images(middleware: OpenStackMiddleware) -> None:
    await _tidy(middleware, timedelta(days=30))
