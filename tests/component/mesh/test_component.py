"""What every component answers because it is one: the tunnel server stands for them all, on a real XMPP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import aiohttp

from reverse_tunnel.config import TunnelConfig
from reverse_tunnel.service import open_tunnel_server
from tests.component.mesh.test_prosody import PATIENCE, RawComponent
from tests.support.prosody import Prosody
from tests.support.tunnel_site import write_config

Servers = tuple[Prosody, Prosody]
COMMAND = "<command xmlns='http://jabber.org/protocol/commands' node='status' action='execute'/>"


def configure(folder: Path, server: Prosody, secret: str, operators: list[str]) -> TunnelConfig:
    (folder / "secret").write_text(secret)
    config = write_config(folder, ["0" * 40])
    xmpp = {"address": server.component, "host": server.host, "port": server.port, "operators": operators}
    return config.model_copy(update={"xmpp": config.xmpp.model_copy(update=xmpp)})


@asynccontextmanager
async def ask_readyz(config: TunnelConfig) -> AsyncIterator[Callable[[], Any]]:
    async with open_tunnel_server(config), aiohttp.ClientSession() as http:

        async def readyz() -> tuple[int, list[str]]:
            async with http.get(f"http://{config.http.listen}/readyz") as answer:
                return answer.status, (await answer.json())["missing"]

        yield readyz


async def test_readyz_names_the_next_step_when_the_server_refuses_our_secret(servers: Servers, tmp_path: Path) -> None:
    config = configure(tmp_path, servers[0], "wrong", [])
    async with ask_readyz(config) as readyz, asyncio.timeout(PATIENCE):
        while "not-authorized" not in str(told := await readyz()):  # noqa: ASYNC110  nobody tells us
            await asyncio.sleep(0.02)
        status, (missing,) = told
        assert status == 503
        assert "secret_file" in missing


async def test_an_operator_asks_the_tunnel_server_for_its_status(servers: Servers, tmp_path: Path) -> None:
    operator = servers[1].components[1]
    config = configure(tmp_path, servers[0], servers[0].secret, [operator])
    async with ask_readyz(config) as readyz:
        async with asyncio.timeout(PATIENCE):
            while (await readyz())[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        client = await RawComponent(operator).connect(servers[1])
        answer = await client.iq(servers[0].component, COMMAND, "set")
        parsed = fromstring(answer[answer.index("<iq") :].replace("<iq ", "<iq xmlns='jabber:component:accept' ", 1))
        fields = {element.get("var") for element in parsed.iter() if element.tag.endswith("field")}
        assert {"fedid", "outbox", "connections", "ports up"} <= fields
        await client.close()
