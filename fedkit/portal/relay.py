"""Be reached at a tunnel server in a DMZ, by whoever cannot dial in: `ssh -R`, and only that.

The relay joins its public port to ours, octet by octet; the portals' own ssh runs inside from end to end, so the relay sees
nothing but ciphertext and can neither read nor change a frame. Datagrams do not go this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import asyncssh

from fedkit.portal.config import RelayConfig
from fedkit.portal.errors import NotReached

USER = "tunnel"
KEEPALIVE, KEEPALIVES = 5, 3


async def keep_relayed(
    relay: RelayConfig, port: int, note: Callable[[NotReached], None], pauses: Callable[[], Iterator[float]]
) -> None:
    """Hold a public port of the relay open for our local `port`, for ever."""
    pause = pauses()
    while True:
        try:
            async with asyncssh.connect(
                relay.host, relay.port, username=USER, client_keys=[str(relay.key)], config=None, agent_path=None,
                known_hosts=([str(relay.host_key)], [], []), preferred_auth=("publickey",), gss_host=None,
                keepalive_interval=KEEPALIVE, keepalive_count_max=KEEPALIVES,
                encryption_algs=["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"],
            ) as conn:  # fmt: skip
                await conn.forward_remote_port(relay.name, 0, "127.0.0.1", port)
                pause = pauses()
                await conn.wait_closed()
                note(NotReached("The relay closed the connection"))
        except (OSError, asyncssh.Error) as error:
            note(NotReached(f"The relay {relay.host} port {relay.port}: {error}"))
        await asyncio.sleep(next(pause))
