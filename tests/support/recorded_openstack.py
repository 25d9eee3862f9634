"""Answers as an OpenStack gives them, from memory: for lists that are too long for a real one on one machine.

python -m tests.support.recorded_openstack SERVERS     prints its port, and serves until its input ends

It signs everybody in, and has one project with so many servers and ports of the site `bench`; Nova's answers are made
from one that a real Nova (2026.1) gave, in pages of 1,000, as Nova's `max_limit` is by default.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import Any

from aiohttp import web

PAGE = 1000
SITE = "bench"
PROJECT = "0123456789abcdef0123456789abcdef"
SERVICES = {
    "identity": "/v3",
    "compute": "/v2.1",
    "network": "",
    "image": "",
    "volumev3": "/v3",
    "block-storage": "/v3",
}


def key_of(number: int) -> str:
    """The key of the server with this number."""
    return str(uuid.UUID(int=number + 1))


def server(number: int) -> dict[str, Any]:
    """As Nova lists it."""
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    links = [{"rel": rel, "href": f"http://127.0.50.1:8774/v2.1/servers/{number}"} for rel in ("self", "bookmark")]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))),
        "name": "box",
        "status": "ACTIVE",
        "tenant_id": PROJECT,
        "user_id": "6a3d7a9ad7d94a57bbd9b8a0c0f3b8d1",
        "metadata": {
            "fedmesh_site": SITE,
            "fedmesh_key": key_of(number),
            "fedmesh_address": address,
            "fedmesh_host_key": "ssh-ed25519 " + "A" * 68,
        },
        "hostId": "f" * 56,
        "image": {"id": str(uuid.UUID(int=1)), "links": links},
        "flavor": {
            "vcpus": 1,
            "ram": 512,
            "disk": 5,
            "ephemeral": 0,
            "swap": 0,
            "original_name": "small",
            "extra_specs": {},
        },
        "created": "2026-11-22T07:00:00Z",
        "updated": "2026-11-22T07:00:03Z",
        "addresses": {
            "intranet": [
                {
                    "version": 4,
                    "addr": address,
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01",
                }
            ]
        },
        "accessIPv4": "",
        "accessIPv6": "",
        "links": links,
        "OS-DCF:diskConfig": "MANUAL",
        "progress": 0,
        "OS-EXT-AZ:availability_zone": "nova",
        "config_drive": "True",
        "key_name": None,
        "OS-SRV-USG:launched_at": "2026-11-22T07:00:03.000000",
        "OS-SRV-USG:terminated_at": None,
        "security_groups": [{"name": "fedmesh machines"}],
        "OS-EXT-STS:task_state": None,
        "OS-EXT-STS:vm_state": "active",
        "OS-EXT-STS:power_state": 1,
        "os-extended-volumes:volumes_attached": [],
        "locked": False,
        "description": None,
        "tags": [f"fedmesh-key={key_of(number)}", f"fedmesh-site={SITE}"],
    }


def port(number: int) -> dict[str, Any]:
    """As Neutron lists it, with the fields that are asked for."""
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))),
        "name": "box",
        "description": f"fedmesh {SITE} {key_of(number)}",
        "network_id": str(uuid.UUID(int=2)),
        "device_id": server(number)["id"],
        "device_owner": "compute:nova",
        "fixed_ips": [
            {"subnet_id": str(uuid.UUID(int=3)), "ip_address": server(number)["metadata"]["fedmesh_address"]}
        ],
        "security_groups": [str(uuid.UUID(int=4))],
    }


class Recorded:
    """All services behind one port."""

    def __init__(self, servers: int) -> None:
        every = [server(number) for number in range(servers)]
        self._pages = {
            None if begin == 0 else every[begin - 1]["id"]: self._page(every, begin)
            for begin in range(0, servers, PAGE)
        }
        self._ports = json.dumps({"ports": [port(number) for number in range(servers)]}).encode()

    def _page(self, every: list[dict[str, Any]], begin: int) -> bytes:
        page: dict[str, Any] = {"servers": every[begin : begin + PAGE]}
        if begin + PAGE < len(every):
            page["servers_links"] = [{"rel": "next", "href": "http://127.0.50.1:8774/v2.1/servers/detail?marker=…"}]
        return json.dumps(page).encode()

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application()
        app.router.add_post("/identity/v3/auth/tokens", self._token)
        app.router.add_get("/compute/v2.1/servers/detail", self._servers)
        app.router.add_get("/{service}/v2.0/ports", self._all_ports)
        app.router.add_get("/{service}{version:(/v[0-9.]*)?/?}", self._version)
        app.router.add_get("/{tail:.*}", self._nothing)
        return app

    async def _token(self, request: web.Request) -> web.Response:
        catalog = [
            {
                "type": kind,
                "name": kind,
                "id": kind,
                "endpoints": [
                    {
                        "id": kind,
                        "interface": "public",
                        "region": "one",
                        "region_id": "one",
                        "url": self._url(request, kind),
                    }
                ],
            }
            for kind in SERVICES
        ]
        token = {
            "methods": ["password"],
            "user": {"id": "u", "name": "u", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": PROJECT, "name": "p", "domain": {"id": "default", "name": "Default"}},
            "expires_at": "2099-01-01T00:00:00.000000Z",
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "roles": [{"id": "m", "name": "member"}],
            "catalog": catalog,
        }
        return web.json_response({"token": token}, status=201, headers={"X-Subject-Token": "t"})

    def _url(self, request: web.Request, kind: str) -> str:
        return f"{request.url.origin()}/{kind}{SERVICES[kind]}"

    async def _version(self, request: web.Request) -> web.Response:
        kind = request.match_info["service"]
        number = {"identity": "v3.14", "compute": "v2.1", "network": "v2.0", "image": "v2.17"}.get(kind, "v3.0")
        path = {"network": "/v2.0/", "image": "/v2/"}.get(kind, SERVICES.get(kind, "") + "/")
        version = {
            "id": number,
            "status": "CURRENT",
            "version": {"compute": "2.96", "block-storage": "3.71", "volumev3": "3.71"}.get(kind, ""),
            "min_version": {"compute": "2.1", "block-storage": "3.0", "volumev3": "3.0"}.get(kind, ""),
            "links": [{"rel": "self", "href": f"{request.url.origin()}/{kind}{path}"}],
        }
        if kind == "identity":
            return web.json_response({"versions": {"values": [version]}})
        return web.json_response({"versions": [version]} if not request.match_info["version"] else {"version": version})

    async def _servers(self, request: web.Request) -> web.Response:
        page = self._pages.get(request.query.get("marker"), b'{"servers": []}')
        return web.Response(body=page, content_type="application/json")

    async def _all_ports(self, _: web.Request) -> web.Response:
        return web.Response(body=self._ports, content_type="application/json")

    async def _nothing(self, request: web.Request) -> web.Response:
        name = request.path.rstrip("/").split("/")[-1].removesuffix(".json").replace("-", "_")
        return web.json_response({"volumes" if name == "detail" else name: []})


async def main(servers: int) -> None:
    """Serve until the standard input ends."""
    runner = web.AppRunner(Recorded(servers).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
