"""A member in the wrong hands: announced, signed, well-behaved, but for how it answers `lease.create`.

    python -m tests.lab.hostile.member CONFIG LIE     in the place of a site's member; prints `ready`

`silent` never answers; `noise` answers what is no signed text; `nonsense` signs a body that is no lease; `another` signs a
view of a lease that nobody asked for. It is the real member on a link that lies, so that all the rest of it is as it should be.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

from deploy.lab.client import Lab
from deploy.lab.places import PYTHON, RUN, SOURCES
from federation_member.config import MemberConfig
from federation_member.service import open_member
from fedkit.config import load
from fedkit.identity.keys import PrivateKey
from fedkit.mesh.api import Peer
from fedkit.mesh.envelope import open_request, seal_answer
from fedkit.mesh.link import Incoming, Serve
from fedkit.mesh.xmpp import XmppLink
from fedkit.service import run

ANOTHER = {"lease_id": str(uuid4()), "state": "running", "revision": 1, "expires": "2099-01-01T00:00:00Z"}
BODIES = {"nonsense": {"lease_id": {"deep": [1e308, None, "🜍" * 1000]}, "state": 7}, "another": ANOTHER}


class LyingLink(XmppLink):
    """A component link that answers `lease.create` itself."""

    def __init__(self, config: MemberConfig, lie: str) -> None:
        xmpp = config.xmpp
        super().__init__(xmpp.address, xmpp.secret(), xmpp.host, xmpp.port)
        self._key = PrivateKey.load(config.identity.key)
        self._lie = lie

    def attach(self, serve: Serve, on_state: Callable[[bool], None]) -> None:
        """Stand between the server and the member."""

        async def answer(incoming: Incoming) -> str:
            request = open_request(incoming.text)[1]
            if request.op != "lease.create":
                return await serve(incoming)
            if self._lie == "silent":
                await asyncio.Event().wait()
            if self._lie == "noise":
                return "\u202e&#0; not a signed text " * 1000
            me, sender = Peer(self._key.fedid, self.address), Peer(request.iss, request.sjid)
            return seal_answer(self._key, me, sender, request, time.time(), f'"body":{json.dumps(BODIES[self._lie])}')

        super().attach(answer, on_state)


@contextmanager
def lying(lab: Lab, site: str, lie: str) -> Iterator[None]:
    """Put it in the place of a site's member; the honest one runs again at the end."""
    role, config = f"{site}/member", str(RUN / site / "member/member.toml")
    lab.stop(role)
    try:
        command = ["env", f"PYTHONPATH={SOURCES}", str(PYTHON), "-m", "tests.lab.hostile.member", config, lie]
        with lab.popen(site, command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield
            finally:
                process.kill()
    finally:
        lab.start(role)


@asynccontextmanager
async def _open(config: MemberConfig, lie: str) -> AsyncIterator[None]:
    async with open_member(config, LyingLink(config, lie)):
        print("ready", flush=True)
        yield


if __name__ == "__main__":
    asked = load(Path(sys.argv[1]), MemberConfig, "MEMBER")
    sys.exit(run(lambda: _open(asked, sys.argv[2])))
