"""The whole Rendezvous and members' directories on two real Prosody servers, and an operator's XMPP client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from slixmpp import JID, ComponentXMPP
from slixmpp.exceptions import IqError

from federation_member.directory import store as directory_store
from federation_member.directory.service import Directory
from fedkit.config import load
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.mesh.node import MeshNode
from fedkit.mesh.tables import create_mesh_tables
from fedkit.mesh.xmpp import XmppLink
from fedkit.store import Database
from rendezvous.config import RendezvousConfig
from rendezvous.service import open_rendezvous
from tests.component.rendezvous.federation import eventually
from tests.support.prosody import Prosody, prosody_pair

CONFIG = """
[identity]
key = "{folder}/rendezvous.pem"
[xmpp]
address = "rendezvous.site-a.test"
host = "{host}"
secret_file = "{folder}/secret"
operators = ["client.site-b.test"]
[store]
url = "sqlite:///{folder}/rendezvous.db"
[http]
listen = "127.0.0.1:0"
[rendezvous]
allow = ["*"]
"""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Prosody, Prosody]]:
    with prosody_pair(tmp_path, "rendezvous", "client") as pair:
        yield pair


def configure(folder: Path, server: Prosody) -> tuple[RendezvousConfig, Peer]:
    """Write the Rendezvous's files."""
    key = PrivateKey.generate()
    key.save(folder / "rendezvous.pem")
    (folder / "secret").write_text(server.secret)
    file = folder / "rendezvous.toml"
    file.write_text(CONFIG.format(folder=folder, host=server.host))
    return load(file, RendezvousConfig, "RENDEZVOUS", {}), Peer(key.fedid, "rendezvous.site-a.test")


@asynccontextmanager
async def member(folder: Path, server: Prosody, rendezvous: Peer) -> AsyncIterator[Directory]:
    """Run a member's directory at its site's server."""
    key = PrivateKey.generate()
    address = f"fm.{server.domain}"
    async with Database(f"sqlite:///{folder / address}.db") as db:
        with db.engine.begin() as conn:
            create_mesh_tables(conn)
            directory_store.metadata.create_all(conn)
        mesh = MeshNode(key, address, db, XmppLink(address, server.secret, server.host, server.port))
        directory = Directory(db, mesh, key, server.domain, rendezvous)
        async with mesh, directory.running():
            yield directory


@asynccontextmanager
async def client(address: str, server: Prosody) -> AsyncIterator[Any]:
    """An XMPP client that knows nothing of our protocol; a component, which Prosody lets in without accounts."""
    xmpp = ComponentXMPP(address, server.secret, server.host, server.port, fix_error_ns=True)  # type: ignore[no-untyped-call]
    for plugin in ("xep_0030", "xep_0059"):
        xmpp.register_plugin(plugin)
    online = asyncio.Event()
    xmpp.add_event_handler("session_start", lambda _: online.set())
    xmpp.connect()
    async with asyncio.timeout(20):
        await online.wait()
    try:
        yield xmpp
    finally:
        await xmpp.disconnect()


def names(directory: Directory, *, alive: bool = True) -> list[str]:
    return sorted(m.name for m in directory.members() if m.alive is alive)


async def test_members_and_an_operator_s_client(tmp_path: Path, servers: tuple[Prosody, Prosody]) -> None:
    site_a, site_b = servers
    config, rendezvous = configure(tmp_path, site_a)
    everybody = [site_a.domain, site_b.domain]
    async with open_rendezvous(config), member(tmp_path, site_a, rendezvous) as a:
        async with member(tmp_path, site_b, rendezvous) as b:
            await eventually(lambda: names(a) == names(b) == everybody)
            async with client("client.site-b.test", site_b) as operator:
                disco = operator.plugin["xep_0030"]
                seen = []
                pages = await disco.get_items(JID(rendezvous.address), iterator=True, ifrom=operator.boundjid)
                pages.amount = 1
                async for page in pages:
                    seen += [(str(jid), name) for jid, _node, name in page["disco_items"]["items"]]
                assert sorted(seen) == [(f"fm.{name}", name) for name in everybody]
            async with client("client.site-a.test", site_a) as nobody:
                with pytest.raises(IqError, match="forbidden"):
                    await nobody.plugin["xep_0030"].get_items(JID(rendezvous.address), ifrom=nobody.boundjid)
        await eventually(lambda: names(a, alive=False) == [site_b.domain])


async def test_its_server_comes_and_goes(tmp_path: Path, servers: tuple[Prosody, Prosody]) -> None:
    site_a, site_b = servers
    config, rendezvous = configure(tmp_path, site_a)
    async with open_rendezvous(config), member(tmp_path, site_b, rendezvous) as b:
        await eventually(lambda: b.state().current)
        site_b.kill()
        await eventually(lambda: b.state().code == "mesh.link_down")
        site_b.start()
        await eventually(lambda: b.state().current)
