"""A bare XMPP component, run at a site: pings a peer or waits to be pinged.

    python -m tests.lab.components ADDRESS SECRET HOST PORT [PEER COUNT]

Prints `online` once it is connected; with a peer it then prints one JSON line for each ping: `{"ok", "condition", "text"}`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from slixmpp import JID, ComponentXMPP
from slixmpp.exceptions import IqError, IqTimeout

from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, SOURCES

PING_TIMEOUT = 8  # seconds


@contextmanager
def component(lab: Lab, site: str, *peer: str) -> Iterator[subprocess.Popen[str]]:
    """Run a component in the place of a site's member; it is connected when the context is entered."""
    found = lab.plan.site(site)
    fm = found.component("fm")
    secret = lab.read(f"{found.name}/member/secret")
    command = [str(PYTHON), "-m", "tests.lab.components", fm.domain, secret, found.dmz, str(fm.port), *peer]
    path = ["env", f"PYTHONPATH={SOURCES}"]
    with lab.popen(f"{found.name}/lan", path + command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "online\n"
            yield process
        finally:
            process.kill()


def member(lab: Lab, site: str) -> str:
    """The address of a site's member in the mesh."""
    return lab.plan.site(site).component("fm").domain


def ping(lab: Lab, site: str, address: str, count: int = 1) -> list[dict[str, object]]:
    """Ping `address` as the member of `site` and return what each ping brought."""
    with component(lab, site, address, str(count)) as process:
        assert process.stdout is not None
        return [json.loads(line) for line in process.stdout]


async def _main(address: str, secret: str, host: str, port: str, peer: str = "", count: str = "0") -> None:
    xmpp = ComponentXMPP(address, secret, host, int(port), fix_error_ns=True)  # type: ignore[no-untyped-call]
    xmpp.register_plugin("xep_0030")
    xmpp.register_plugin("xep_0199")
    online = asyncio.Event()
    xmpp.add_event_handler("session_start", lambda _: online.set())
    xmpp.connect()
    await online.wait()
    print("online", flush=True)
    for _ in range(int(count)):
        print(json.dumps(await _ping(xmpp, peer)), flush=True)
    if not peer:
        await asyncio.Event().wait()


async def _ping(xmpp: ComponentXMPP, peer: str) -> dict[str, object]:
    try:
        # ejabberd takes nothing from a component without `from`.
        await xmpp.plugin["xep_0199"].ping(JID(peer), ifrom=xmpp.boundjid, timeout=PING_TIMEOUT)
    except (IqError, IqTimeout) as error:
        return {"ok": False, "condition": error.condition, "text": error.text}
    return {"ok": True, "condition": "", "text": ""}


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
