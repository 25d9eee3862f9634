"""Keys, projects, wallets and revocations through `fed`, against a whole member."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.lab.components import to_toml
from federation_member.service import Member
from fedkit.identity.keys import PrivateKey
from fedkit.policy import compact
from fedkit.policy.model import Statement
from tests.component.member.conftest import PASSWORD
from tests.component.member.test_command_line import Done, Shell, fed

Site = tuple[Member, str, str]


def config_of(folder: Path, url: str) -> str:
    """The file with which the running member's operator speaks to its store."""
    file = folder / "member.toml"
    content = {
        "name": "site-a.test",
        "identity": {"key": f"{folder}/site-a.test.pem"},
        "xmpp": {"address": "fm.site-a.test", "host": "127.0.0.1", "secret_file": f"{folder}/secret"},
        "store": {"url": f"sqlite:///{folder}/site-a.test.db"},
        "api": {"listen": url.removeprefix("http://")},
    }
    file.write_text(to_toml(content))
    return str(file)


async def test_an_account_with_projects_and_a_key_of_its_own(site: Site, tmp_path: Path) -> None:
    member, url, _token = site
    config = config_of(tmp_path, url)
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}

    async def user(*arguments: str, stdin: str = "") -> Done:
        return await fed("member", "user", *arguments, "-c", config, stdin=stdin)

    added = await user("add", "bob", "--project", "x", "--project", "y", "--password-stdin", stdin=PASSWORD + "\n")
    assert added.status == 0, added.err
    key = PrivateKey.generate("p256")
    key.save(tmp_path / "bob.pem")
    public = tmp_path / "bob.pub"
    public.write_bytes(key.public.spki)

    refused = await fed("login", url, "--user", "bob", "--key", str(tmp_path / "bob.pem"), **home)
    assert (refused.status, "account.wrong_key" in refused.err) == (1, True)
    assert (await user("key", "bob", str(public))).status == 0
    logged_in = await fed("login", url, "--user", "bob", "--key", str(tmp_path / "bob.pem"), "--act-days", "3", **home)
    assert logged_in.status == 0, logged_in.err
    stranger = tmp_path / "stranger.pem"
    PrivateKey.generate().save(stranger)
    refused = await fed("login", url, "--user", "bob", "--key", str(stranger), **home)
    assert (refused.status, "account.wrong_key" in refused.err) == (1, True)

    made = await fed("order", "create", "--image", "debian", "--wait", "-o", "json", **home)
    assert (made.status, made.data[0]["project"]) == (0, "x")
    assert (await user("projects", "bob", "--project", "y")).status == 0
    listed = await user("list", "-o", "json")
    bob = next(row for row in listed.data if row["user"] == "bob")
    assert (bob["projects"], bob["fedid"], bob["key"]) == ("y", key.fedid, "the user's own")
    await until_published(member)


async def until_published(member: Member) -> None:
    """The running member has heard at once of what a command wrote into its store."""
    async with asyncio.timeout(20):
        while await member.directory.revocations_of(member.mesh.me.fedid) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_revoked_by_its_operator(site: Site, tmp_path: Path) -> None:
    member, url, token = site
    config = config_of(tmp_path, url)
    shell = Shell(url, token)
    assert (await shell("order", "create", "--image", "debian", "--wait")).status == 0
    done = await fed("member", "user", "revoke", "alice", "-c", config)
    assert (done.status, done.err.startswith("Revoked and suspended alice")) == (0, True)
    await until_published(member)
    refused = (await shell("order", "create", "--image", "debian", "-o", "json")).data[0]
    assert refused["code"] == "credentials.suspended"
    assert (await fed("member", "user", "restore", "alice", "-c", config)).status == 0
    assert (await shell("order", "create", "--image", "debian", "--wait")).status == 0


async def test_a_user_registers_a_key_of_their_own(site: Site, tmp_path: Path) -> None:
    member, url, token = site
    shell = Shell(url, token)
    before = await member.accounts.get("alice")
    key = PrivateKey.generate()
    key.save(tmp_path / "me.pem")
    done = await shell("credentials", "use-key", str(tmp_path / "me.pem"))
    assert (done.status, key.fedid in done.err) == (0, True), done.err
    now = await member.accounts.get("alice")
    assert (before.custodial, now.custodial, now.principal) == (True, False, key.fedid)
    (order,) = (await shell("order", "create", "--image", "debian", "-o", "json")).data
    assert order["code"] == "credentials.no_mandate"
    home = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert (await fed("login", url, "--user", "alice", "--key", str(tmp_path / "me.pem"), **home)).status == 0
    assert (await fed("order", "watch", order["id"], "--timeout", "60", **home)).status == 0


async def test_a_wallet_and_what_one_takes_back(site: Site, tmp_path: Path) -> None:
    _member, url, token = site
    shell = Shell(url, token)
    key = PrivateKey.generate()
    key.save(tmp_path / "me.pem")
    says = Statement.parse(f"{key.fedid}.friend <- {PrivateKey.generate().fedid}")
    files = []
    for days in (2, 3):
        made = compact.issue(key, says, datetime.now(UTC) + timedelta(days=days))
        files.append(tmp_path / f"{days}.cred")
        files[-1].write_bytes(made.raw)
        added = await shell("credentials", "add", str(files[-1]), "-o", "json")
        assert (added.status, added.data["id"], added.data["statement"]) == (0, made.id, str(says))
    listed = (await shell("credentials", "list", "-o", "json")).data
    assert len(listed) == 2
    assert (await shell("credentials", "remove", listed[0]["id"])).status == 0
    assert (await shell("credentials", "remove", listed[0]["id"])).status == 2

    for number, file in enumerate(files, 1):
        done = await shell("credentials", "revoke", str(file), "--key", str(tmp_path / "me.pem"), "-o", "json")
        assert (done.status, len(done.data)) == (0, number), done.err
    other = tmp_path / "other.pem"
    PrivateKey.generate().save(other)
    refused = await shell("credentials", "revoke", str(files[0]), "--key", str(other))
    assert (refused.status, "not by this key" in refused.err) == (2, True)
    refused = await shell("credentials", "add", str(tmp_path / "me.pem"))
    assert (refused.status, "policy.bad_credential" in refused.err) == (2, True)
