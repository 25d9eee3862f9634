"""Commands in machines by real ssh: the machine is the one that was made, and what it prints is bounded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncssh
import pytest

from federation_member.orders.segments.remote import KEPT, NotReached, Place, Ssh
from federation_member.orders.ssh_keys import new_key, public_half

KEY, HOST_KEY = new_key(), new_key()
PLENTY = 10 * KEPT


async def serve(process: asyncssh.SSHServerProcess[str]) -> None:
    """A machine's shell, of a few words."""
    match process.command:
        case "both":
            process.stdout.write("out\n")
            process.stderr.write("\x1b[31merr\x1b[0m\n")
            process.exit(3)
        case "plenty":
            process.stdout.write("x" * PLENTY + "end")
            await process.stdout.drain()
            process.exit(0)
        case "killed":
            process.exit_with_signal("KILL")
        case "vanish":
            process.channel.get_connection().abort()
        case "read":
            process.stdout.write(await process.stdin.read() or "nothing")
            process.exit(0)
        case _:
            await asyncio.Event().wait()


class Door(asyncssh.SSHServer):
    """Lets root in, by one key."""

    def begin_auth(self, username: str) -> bool:
        return True


@pytest.fixture
async def machine() -> AsyncIterator[Place]:
    """A machine's ssh server."""
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Door,
        server_host_keys=[asyncssh.import_private_key(HOST_KEY)],
        authorized_client_keys=asyncssh.import_authorized_keys(public_half(KEY)),
        process_factory=serve,
    )
    async with server:
        yield Place("127.0.0.1", server.get_port(), [public_half(HOST_KEY)], KEY)


async def test_what_it_prints_comes_back_with_its_status(machine: Place) -> None:
    said = await Ssh().run(machine, "both")
    assert (said.text, said.status) == ("out\nerr\n", 3)
    assert (await Ssh().run(machine, "read")).text == "nothing"
    assert (await Ssh().run(machine, "read", "é" * 100_000)).text == "é" * KEPT


async def test_of_plenty_the_end_is_kept(machine: Place) -> None:
    said = await Ssh().run(machine, "plenty")
    assert (len(said.text), said.text[-4:], said.status) == (KEPT, "xend", 0)


async def test_a_command_that_is_killed_tells_by_what(machine: Place) -> None:
    assert (await Ssh().run(machine, "killed")).status == 137


async def test_a_machine_that_goes_away_is_not_taken_for_success(machine: Place) -> None:
    with suppress(NotReached):
        assert (await Ssh().run(machine, "vanish")).status == 255


async def test_what_hangs_can_be_given_up(machine: Place) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await Ssh().run(machine, "hang")


@pytest.mark.parametrize("host_keys", [[], [public_half(new_key())], ["ssh-nonsense AAAA"]])
async def test_another_machine_is_told_nothing(machine: Place, host_keys: list[str]) -> None:
    with pytest.raises(NotReached):
        await Ssh().run(Place(machine.host, machine.port, host_keys, KEY), "both")


async def test_who_is_not_let_in_or_finds_nobody_says_so(machine: Place) -> None:
    with pytest.raises(NotReached, match=str(machine.port)):
        await Ssh().run(Place(machine.host, machine.port, machine.host_keys, new_key()), "both")
    with pytest.raises(NotReached):
        await Ssh().run(Place(machine.host, 1, machine.host_keys, KEY), "both")
