"""`fed experiment` against a whole member that runs all of it itself."""

from __future__ import annotations

import asyncio
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from federation_member.service import Member
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from tests.component.member.test_command_line import Shell

PROGRAM = """
set ns [new Simulator]
source tb_compat.tcl
set a [$ns node]
set b [$ns node]
tb-set-node-testbed $a deter
tb-set-node-testbed $b deter
set link0 [$ns duplex-link $a $b 100Mb 0ms DropTail]
$ns rtproto Static
$ns run
"""

Site = tuple[Member, str, str]


async def test_one_is_created_followed_shown_and_terminated(site: Site, tmp_path: Path) -> None:
    _member, url, token = site
    shell = Shell(url, token, tmp_path)
    program, key = tmp_path / "exp.ns", tmp_path / "exp.key"
    program.write_text(PROGRAM)
    mapped = ("--map", "deter=site-a.test")
    made = await shell("experiment", "create", str(program), *mapped, "--key", str(key), "--follow", "-o", "json")
    assert (made.status, made.data["state"]) == (0, "active"), made.err
    assert "allocating" in made.err
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert PrivateKey.load(key).fedid == made.data["fedid"]
    shown = await shell("experiment", "show", "exp")
    assert [line.split()[:4] for line in shown.out.splitlines()[-2:]] == [
        ["deter", "site-a.test", "a", "running"],
        ["deter", "site-a.test", "b", "running"],
    ]
    topology = await shell("experiment", "topology", "exp")
    assert {computer["name"] for computer in json.loads(topology.out)["computers"]} == {"a", "b"}
    assert "active" in (await shell("experiment", "log", "exp")).out
    stopped = await shell("experiment", "operate", "exp", "stop", "a")
    assert (stopped.status, stopped.out.split()[-2:]) == (0, ["a", "done"])
    assert (await shell("experiment", "operate", "exp", "start", "nobody")).status == 1
    entered = await shell("experiment", "credentials", "exp", "--key", str(key), "--into", str(tmp_path / "ssh"))
    assert (entered.status, "Not to be entered yet: a, b" in entered.err) == (1, True), (
        entered.err
    )  # they have no tunnels
    assert (tmp_path / "ssh/ssh_config").read_text().startswith("#")
    credential = (tmp_path / "ssh/experiment.cred").read_text()
    assert capability_of(credential) == f"{made.data['fedid']}.operate"
    assert len((tmp_path / "ssh/deter-1.key").read_text()) > 300
    ran = await shell("experiment", "operate", "exp", "run", "--node", "b", "--", "ping", "-c", "1", "a")
    assert (ran.status, "b: not done: Its lender has no way to it." in ran.err) == (1, True)
    assert (await shell("experiment", "operate", "exp", "run")).status == 2
    renewed = await shell("experiment", "renew", "exp", "--until", "2999-01-31T12:00:00+0000", "-o", "json")
    assert renewed.data["valid_until"].startswith("2999-01-31")
    soon = (datetime.now(UTC) + timedelta(minutes=14)).isoformat(timespec="seconds")
    await shell("experiment", "renew", "exp", "--until", soon)
    for _ in range(100):
        warned = await shell("experiment", "show", "exp")
        if "unless you renew it" in warned.err:
            break
        await asyncio.sleep(0.1)
    assert "unless you renew it" in warned.err
    assert (await shell("order", "list", "-o", "json")).data == []
    ended = await shell("experiment", "terminate", "exp", "--follow", "-o", "json")
    assert (ended.status, ended.data["state"]) == (0, "terminated")
    assert (await shell("experiment", "list", "-o", "json")).data == []


def capability_of(credential: str) -> str:
    """The role that a credential gives."""
    return str(compact.read(credential.strip()).statement.head)


async def test_its_key_is_kept_with_the_login_of_whoever_made_it(site: Site, tmp_path: Path) -> None:
    _member, url, token = site
    shell = Shell(url, token, tmp_path)
    program = tmp_path / "exp.ns"
    program.write_text(PROGRAM)
    made = await shell("experiment", "create", str(program), "-o", "json")
    (kept,) = (tmp_path / "fedmesh/experiments").iterdir()
    assert (kept.name, stat.S_IMODE(kept.stat().st_mode)) == (f"{made.data['id']}.key", 0o600)
    assert str(kept) in made.err
    again = await shell("experiment", "create", str(program))
    assert again.status == 1
    assert [path.name for path in (tmp_path / "fedmesh/experiments").iterdir()] == [kept.name]
    await shell("experiment", "credentials", "exp", "--into", str(tmp_path / "ssh"))
    assert (tmp_path / "ssh/experiment.cred").exists()
    kept.unlink()
    assert (await shell("experiment", "credentials", "exp")).status == 2


async def test_a_larger_description_extends_it_and_another_one_does_not(site: Site, tmp_path: Path) -> None:
    _member, url, token = site
    shell = Shell(url, token, tmp_path)
    program, mapped = tmp_path / "exp.ns", ("--map", "deter=site-a.test")
    program.write_text(PROGRAM)
    assert (await shell("experiment", "create", str(program), *mapped, "--follow")).status == 0
    more = "set c [$ns node]\ntb-set-node-testbed $c deter\nset link1 [$ns duplex-link $b $c 100Mb 0ms DropTail]\n"
    program.write_text(PROGRAM.replace("$ns rtproto", more + "$ns rtproto"))
    refused = await shell("experiment", "extend", "exp", str(program), "--follow")
    assert (refused.status, "b on link1: is not on it" in refused.err) == (2, True), refused.err
    more = "set c [$ns node]\nset d [$ns node]\nset link1 [$ns duplex-link $c $d 100Mb 0ms DropTail]\n"
    program.write_text(PROGRAM.replace("$ns rtproto", more + "$ns rtproto"))
    done = await shell("experiment", "extend", "exp", str(program), "--place", "deter", "--follow", "-o", "json")
    assert (done.status, done.data["extending"]) == (0, False), done.err
    assert [node["name"] for part in done.data["segments"] for node in part["nodes"]] == ["a", "b", "c", "d"]
    assert "what was added runs" in done.err


async def test_a_kit_is_chosen_by_name(site: Site, tmp_path: Path) -> None:
    _member, url, token = site
    shell = Shell(url, token, tmp_path)
    (program := tmp_path / "exp.ns").write_text(PROGRAM)
    wrong = await shell("experiment", "create", str(program), "--kit", "federatoin")
    assert (wrong.status, "kits.unknown" in wrong.err, "did you mean federation?" in wrong.err) == (2, True, True)
    made = await shell("experiment", "create", str(program), "--kit", "federation", "-o", "json")
    assert (made.status, made.data["kit"]) == (0, "federation"), made.err
    assert (await shell("members", "-o", "json")).data[0]["kits"] == ["federation"]


async def test_errors_are_told_with_file_and_line(site: Site, tmp_path: Path) -> None:
    _member, url, token = site
    shell = Shell(url, token, tmp_path)
    program = tmp_path / "exp.ns"
    program.write_text(PROGRAM.replace("$ns rtproto", "$nobody rtproto"))
    made = await shell("experiment", "create", str(program))
    assert (made.status, "exp.ns:9" in made.err, "topology.bad_description" in made.err) == (2, True, True)
    assert (await shell("experiment", "show", "exp")).status == 1


async def test_who_is_granted_it_shows_and_terminates_it(site: Site, tmp_path: Path) -> None:
    member, url, token = site
    shell = Shell(url, token, tmp_path)
    program, credential = tmp_path / "exp.ns", tmp_path / "for-bob.cred"
    program.write_text(PROGRAM)
    made = (await shell("experiment", "create", str(program), "--name", "mine", "-o", "json")).data
    await member.accounts.add("bob", "physics", "correct horse battery")
    bob = await member.accounts.get("bob")
    _token, secret = await member.accounts.issue("bob", "test", 1)
    theirs = Shell(url, secret)
    assert (await theirs("experiment", "show", made["id"])).status == 1
    granted = await shell("experiment", "grant", "mine", bob.principal, "--until", "2999-01-31T12:00:00+0000")
    credential.write_text(granted.out)
    shown = await theirs("experiment", "show", made["id"], "--credential", str(credential), "-o", "json")
    assert shown.data["name"] == "mine"
    listed = (await shell("experiment", "grants", "mine", "-o", "json")).data
    assert [(one["principal"], one["revoked"]) for one in listed] == [(bob.principal, None)]
    revoked = await shell("experiment", "revoke", "mine", bob.principal, "-o", "json")
    assert [one["revoked"] is not None for one in revoked.data] == [True]
    refused = await theirs("experiment", "terminate", made["id"], "--credential", str(credential))
    assert (refused.status, "experiments.not_granted" in refused.err) == (1, True)
    granted = await shell("experiment", "grant", "mine", bob.principal, "--until", "2999-02-01T12:00:00+0000")
    credential.write_text(granted.out)
    assert (await theirs("credentials", "add", str(credential))).status == 0
    ended = await theirs("experiment", "terminate", made["id"], "--follow", "-o", "json")
    assert (ended.status, ended.data["state"]) == (0, "terminated"), ended.err


async def test_a_party_sees_its_own_part(site: Site, tmp_path: Path) -> None:
    member, url, token = site
    shell = Shell(url, token, tmp_path)
    program, key, credential = tmp_path / "exp.ns", tmp_path / "bob.pub", tmp_path / "for-bob.cred"
    apart = PROGRAM.replace("set link0 [$ns duplex-link $a $b 100Mb 0ms DropTail]", "")  # no portals: it has no tunnels
    program.write_text(apart.replace("tb-set-node-testbed $b deter", "tb-set-node-testbed $b hall"))
    key.write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFZ3vXvM5Yy0m2mD0Yc0v9u0m6J7s7n0wq0m2mD0Yc0v bob\n")
    for wrong in (("--party", "red"), ("--party-key", f"red={key}"), ("--party", "red=nowhere")):
        assert (await shell("experiment", "create", str(program), *wrong)).status == 2
    parties = (
        "--party",
        "red=deter",
        "--party-key",
        f"red={key}",
        "--map",
        "deter=site-a.test",
        "--map",
        "hall=site-a.test",
    )
    made = await shell("experiment", "create", str(program), *parties, "-o", "json")
    assert made.status == 0, made.err
    await member.accounts.add("bob", "physics", "correct horse battery")
    bob = await member.accounts.get("bob")
    _token, secret = await member.accounts.issue("bob", "test", 1)
    theirs = Shell(url, secret, tmp_path / "theirs")
    until = ("--until", "2999-01-31T12:00:00+0000")
    assert (await shell("experiment", "grant", "exp", bob.principal, *until, "--party", "blue")).status == 2
    credential.write_text((await shell("experiment", "grant", "exp", bob.principal, *until, "--party", "red")).out)
    shown = await theirs("experiment", "show", made.data["id"], "--credential", str(credential), "-o", "json")
    assert {part["testbed"] for part in shown.data["segments"]} == {"deter", "hall"}
    assert (await theirs("experiment", "terminate", made.data["id"], "--credential", str(credential))).status == 1
