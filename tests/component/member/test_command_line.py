"""`fed` against a whole member: what it prints, and with which status it ends."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from asyncio.subprocess import Process
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from federation_member.middleware.contract import NoCapacity
from federation_member.service import Member
from tests.component.member.conftest import PASSWORD, open_site
from tests.support.fake_middleware import Cloud


@dataclass
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed with `-o json`."""
        return json.loads(self.out)


async def start(*arguments: str, **environ: str) -> Process:
    """Start the command as a person's shell would."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "deploy.cli",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
    )


async def fed(*arguments: str, stdin: str = "", **environ: str) -> Done:
    """Run the command to its end."""
    process = await start(*arguments, **environ)
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


@dataclass
class Shell:
    """A shell whose `fed` knows member and token."""

    url: str
    token: str
    config: Path = Path("/nonexistent/.config")

    async def __call__(self, *arguments: str) -> Done:
        return await fed(*arguments, **self._environ)

    async def start(self, *arguments: str) -> Process:
        """Start a command that the test watches."""
        return await start(*arguments, **self._environ)

    @property
    def _environ(self) -> dict[str, str]:
        return {"FED_URL": self.url, "FED_TOKEN": self.token, "XDG_CONFIG_HOME": str(self.config)}


Site = tuple[Member, str, str]


async def test_log_in_order_look_and_delete(site: Site, tmp_path: Path) -> None:
    _member, url, _token = site
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = await fed("login", url, "--user", "alice", "--password-stdin", stdin=PASSWORD + "\n", **home)
    assert (done.status, done.out) == (0, "")
    stored = tmp_path / "config/fedmesh/credentials.toml"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert PASSWORD not in stored.read_text()

    made = await fed("order", "create", "--image", "debian", "--wait", "-o", "json", **home)
    assert made.status == 0
    (order,) = made.data
    assert (order["state"], order["member"]) == ("fulfilled", "site-a.test")
    assert order["id"] in made.err  # progress

    listed = await fed("order", "list", **home)
    assert order["id"] in listed.out
    shown = await fed("order", "show", order["id"], "-o", "yaml", **home)
    assert f"id: {order['id']}" in shown.out
    why = await fed("order", "why", order["id"], "-o", "json", **home)
    assert why.data["order"]["id"] == order["id"]
    gone = await fed("order", "delete", order["id"], "--wait", "-o", "json", **home)
    assert (gone.status, gone.data["state"]) == (0, "deleted")
    assert (await fed("order", "list", "-o", "json", **home)).data == []

    assert (await fed("logout", **home)).status == 0
    assert (await fed("order", "list", **home)).status == 1


async def test_whoever_has_no_key_of_their_own_learns_by_which_fedid_others_know_them(site: Site) -> None:
    member, url, token = site
    principal = (await member.accounts.get("alice")).principal
    told = await Shell(url, token)("whoami", "-o", "json")
    assert (told.status, told.data["user"], told.data["principal"]) == (0, "alice", principal)
    assert principal in (await Shell(url, token)("whoami")).out


async def test_members_and_images(site: Site) -> None:
    _member, url, token = site
    shell = Shell(url, token)
    members = await shell("members", "-o", "json")
    assert [member["name"] for member in members.data] == ["site-a.test"]
    assert "No Rendezvous is configured" in members.err
    images = await shell("images")
    assert images.out.split() == ["MEMBER", "IMAGE", "DESCRIPTION", "site-a.test", "debian", "-"]


async def test_the_same_idempotency_key_orders_once(site: Site) -> None:
    member, url, token = site
    shell = Shell(url, token)
    command = ("order", "create", "--image", "debian", "--idempotency-key", "once", "-o", "json")
    first, again = await shell(*command), await shell(*command)
    assert first.data[0]["id"] == again.data[0]["id"]
    other = await shell(*command, "--count", "2")
    assert (other.status, "orders.idempotency_conflict" in other.err) == (1, True)
    del member


async def test_user_data_and_keys_are_read_from_files(site: Site, tmp_path: Path) -> None:
    _member, url, token = site
    shell = Shell(url, token)
    (tmp_path / "key.pub").write_text("# mine\nssh-ed25519 AAAA alice\n")
    (tmp_path / "script").write_text("#!/bin/sh\n")
    files = ("--ssh-key", str(tmp_path / "key.pub"), "--user-data", str(tmp_path / "script"))
    made = await shell("order", "create", "--image", "debian", *files, "-o", "json")
    assert made.data[0]["spec"]["ssh_keys"] == ["ssh-ed25519 AAAA alice"]
    assert made.data[0]["spec"]["user_data_octets"] == 10
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    refused = await shell("order", "create", "--image", "debian", "--ssh-key", str(tmp_path / "key"))
    assert (refused.status, "is a private key" in refused.err) == (2, True)


async def test_waiting_ends_with_what_it_found(tmp_path: Path) -> None:
    cloud = Cloud(refusal=NoCapacity("No room."))
    async with open_site(tmp_path, cloud) as (_member, url, token):
        shell = Shell(url, token)
        late = await shell("order", "create", "--image", "debian", "--wait", "--timeout", "1", "-o", "json")
        assert (late.status, late.out) == (4, "")
        assert "[cli.timed_out]" in late.err
        (order,) = (await shell("order", "list", "-o", "json")).data
        watching = asyncio.create_task(shell("order", "watch", order["id"], "--timeout", "60"))
        await asyncio.sleep(0.5)
        await shell("order", "delete", order["id"])
        ended = await watching
        assert (ended.status, "[cli.not_fulfilled]" in ended.err) == (1, True)


async def test_a_restart_of_the_member_does_not_end_the_waiting(tmp_path: Path) -> None:
    cloud = Cloud()
    cloud.gate.clear()  # the machine is not made before the test says so
    async with AsyncExitStack() as life:
        member, url, token = await life.enter_async_context(open_site(tmp_path, cloud))
        shell = Shell(url, token)
        (order,) = (await shell("order", "create", "--image", "debian", "-o", "json")).data
        watching = await shell.start("order", "watch", order["id"], "--timeout", "60", "-o", "json")
        assert watching.stderr is not None
        assert order["id"] in (await watching.stderr.readline()).decode()
        port = member.http.port
    assert "broke off" in (await watching.stderr.readline()).decode()
    async with open_site(tmp_path, cloud, port):
        cloud.gate.set()
        out, _err = await watching.communicate()
    assert (watching.returncode, json.loads(out)["state"]) == (0, "fulfilled")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("order", "show", "00000000-0000-0000-0000-000000000000"), 1, "orders.unknown_order"),
        (("order", "show", "no-id"), 2, "web.not_found"),
        (("order", "create", "--image", "debian", "-r", "vcpu >="), 2, "orders.unusable_requirements"),
        (("order", "create", "--image", "debian", "-r", "vcpus > 2"), 2, "orders.unknown_requirement"),
        (("order", "create", "--image", "debian", "--kind", "castle"), 2, "web.invalid"),
        (("order", "create", "--image", "debian", "--network", "00000000-0000-0000-0000-000000000000"), 2, "orders."),
        (("order", "create"), 2, "input.invalid"),
        (("tunnel", "open", "00000000-0000-0000-0000-000000000000", "web"), 1, "orders.unknown_order"),
        (("order", "list", "--state", "gone"), 2, "web.invalid"),
        (("order", "list", "-o", "xml"), 2, ""),
        (("castle",), 2, ""),
    ],
)
async def test_what_cannot_be_done_says_why(site: Site, arguments: tuple[str, ...], status: int, code: str) -> None:
    _member, url, token = site
    done = await Shell(url, token)(*arguments)
    assert (done.status, done.out) == (status, "")
    assert code in done.err
    assert "Traceback" not in done.err


async def test_a_wrong_token_is_a_definite_no(site: Site) -> None:
    _member, url, _token = site
    done = await Shell(url, "fed_wrong")("order", "list")
    assert (done.status, "[account.unauthenticated]" in done.err) == (1, True)


async def test_nobody_there_is_not_reachable() -> None:
    done = await Shell("http://127.0.0.1:1", "fed_any")("order", "list")
    assert (done.status, "[cli.not_reachable]" in done.err) == (3, True)


async def test_something_else_there_is_no_member(site: Site) -> None:
    _member, url, token = site
    done = await Shell(url + "/app.js?", token)("order", "list")
    assert (done.status, "[web.not_found]" in done.err or "[cli.not_a_member]" in done.err) == (2, True)


async def test_help_explains_by_example() -> None:
    for group in ("order", "tunnel", "id", "config", "member"):
        done = await fed(group, "--help")
        assert done.status == 0
        assert f"fed {group}" in done.out
