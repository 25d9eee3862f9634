"""`fed order` for every kind: what is ordered, shown, and deleted in whatever order it is named."""

from __future__ import annotations

from federation_member.service import Member
from tests.component.member.test_command_line import Shell

Site = tuple[Member, str, str]


async def test_everything_is_ordered_shown_and_deleted_at_once(site: Site) -> None:
    _member, url, token = site
    shell = Shell(url, token)

    async def have(*options: str) -> str:
        done = await shell("order", "create", *options, "--wait", "-o", "json")
        assert done.status == 0, done.err
        return str(done.data[0]["id"])

    machine = await have("--image", "debian")
    disk = await have("--kind", "volume", "--size", "10", "--name", "data")
    attached = await have("--kind", "attachment", "--machine", machine, "--volume", disk, "--device", "/dev/vdc")
    address = await have("--kind", "public-ip", "--machine", machine)
    kept = await have("--kind", "snapshot", "--machine", machine)
    copy = await have("--image", f"snapshot:{kept}")

    shown = (await shell("order", "show", attached, "-o", "json")).data
    assert shown["spec"] == {
        "kind": "attachment",
        "name": "attachment",
        "machine": machine,
        "volume": disk,
        "device": "/dev/vdc",
    }
    assert shown["uses"] == [machine, disk]
    record = (await shell("order", "show", disk)).out
    assert all(word in record for word in ("10", attached, "data"))
    assert address in (await shell("order", "list", "--kind", "public-ip")).out

    refused = await shell("order", "delete", machine, disk)
    assert (refused.status, "[orders.in_use]" in refused.err) == (1, True)
    assert f"delete first: attachment {attached}, public address {address}" in refused.err
    everything = (machine, kept, disk, attached, copy, address)
    gone = await shell("order", "delete", *everything, "--wait", "-o", "json")
    assert gone.status == 0, gone.err
    assert [(order["id"], order["state"]) for order in gone.data] == [(one, "deleted") for one in everything]


async def test_options_of_another_kind_are_refused_before_anything_is_ordered(site: Site) -> None:
    _member, url, token = site
    shell = Shell(url, token)
    wrong = {
        ("--kind", "volume", "--image", "debian"): "A volume takes no --image",
        ("--kind", "public-ip"): "A public address needs --machine",
        ("--image", "debian", "--image-url", "https://images.test/i", "--sha256", "0" * 64): "A machine has one image",
        ("--image-url", "https://images.test/i"): "--image-url and --sha256 come together",
    }
    for options, words in wrong.items():
        done = await shell("order", "create", *options)
        assert (done.status, words in done.err) == (2, True), done.err
    assert (await shell("order", "list", "-o", "json")).data == []
