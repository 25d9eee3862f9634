"""Images of virtual machines: built the same each time, kept apart by what they are made of, with a word where they cannot be."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from deploy.image.guest import debian
from deploy.image.guest.__main__ import main
from deploy.image.guest.build import ARCHITECTURE, RECIPES, GuestImage, build
from deploy.image.guest.tiny import HERE
from deploy.image.packages import ImageError
from federation_member.middleware.guest.nocloud import Nic, network_config


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_built_twice_is_the_same(tmp_path: Path) -> None:
    if shutil.which("apt-get") is None or platform.machine() != ARCHITECTURE:
        pytest.skip("images are built on Debian, for x86_64")
    said: list[str] = []
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "tiny.new-killed").mkdir()
    first, second = (build("tiny", tmp_path / name, said.append) for name in ("one", "two"))
    assert content(first.folder) == content(second.folder)
    assert sum(map(len, content(first.folder).values())) < 24 << 20
    assert {path.name for path in (tmp_path / "one").iterdir()} == {first.folder.name, "tiny.lock"}
    spoken = len(said)
    assert build("tiny", tmp_path / "one", said.append) == first  # it is there: nothing to do, nothing to say
    assert len(said) == spoken


class Small:
    """A recipe whose packages and sources a test changes."""

    name = "small"
    disk_format = "raw"
    command_line = ""
    user_data = "script"

    def __init__(self, source: Path) -> None:
        self.sources = (source,)
        self.versions = ["a=1"]
        self.made = 0

    def packages(self) -> list[str]:
        return self.versions

    def make(self, packages: list[str], scratch: Path, into: Path) -> None:
        self.made += 1
        (into / "disk").write_text(" ".join(packages))
        if packages == ["broken=1"]:
            raise ImageError("no")


def test_other_packages_or_another_recipe_make_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = tmp_path / "recipe"
    source.write_text("1")
    small = Small(source)
    monkeypatch.setitem(RECIPES, "small", small)
    cache, said = tmp_path / "cache", list[str]()
    first = build("small", cache, said.append)
    small.versions = ["a=2"]
    second = build("small", cache, said.append)
    source.write_text("2")
    third = build("small", cache, said.append)
    assert len({first.folder, second.folder, third.folder}) == 3
    assert first.disk.read_text() == "a=1"  # disks of machines lie over it
    small.versions = ["broken=1"]
    with pytest.raises(ImageError):
        build("small", cache, said.append)
    assert len(list(cache.iterdir())) == 4  # and the lock: nothing half made
    assert small.made == 4


def test_copies_for_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "image"
    folder.mkdir()
    for part in ("kernel", "initrd", "disk"):
        (folder / part).write_text(part)
    image = GuestImage("tiny", folder, "raw", "quiet", "script")
    monkeypatch.setattr("deploy.image.guest.__main__.build", lambda name: image)
    assert main(["tiny", "--out", str(tmp_path / "out")]) == 0
    assert f'"kernel": "{tmp_path}/out/kernel"' in capsys.readouterr().out
    assert content(tmp_path / "out") == content(folder)


def test_another_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(ImageError, match="aarch64"):
        build("tiny", tmp_path)


def test_what_the_debian_image_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("PATH", str(tmp_path))
        with pytest.raises(ImageError, match="run: apt-get install"):
            debian.check_tools()
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="`tiny` needs no root"):
        debian.check_tools()


YAML = """\
version: 1
config:
  - type: physical
    name: eth0
    mac_address: "52:54:00:AA:00:01"
    subnets:
      - type: static
        address: 10.0.0.5/24
        gateway: 10.0.0.1
        dns_nameservers:
          - 10.0.0.1
          - 10.0.0.2
  - type: physical
    mac_address: 52:54:00:aa:00:02
    subnets:
      - type: dhcp
  - type: physical
    mac_address: 52:54:00:aa:00:03
    subnets:
      - type: manual
  - type: nameserver
    address: [9.9.9.9]
"""
NICS = [
    Nic(
        "52:54:00:aa:00:01",
        IPv4Interface("10.0.0.5/24"),
        IPv4Address("10.0.0.1"),
        (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")),
    ),
    Nic("52:54:00:aa:00:02"),
    Nic("52:54:00:aa:00:03", "none"),
]


@pytest.mark.parametrize("text", [YAML.encode(), network_config(NICS)], ids=["as people write it", "as we write it"])
def test_the_tiny_guest_reads_network_configuration(text: bytes) -> None:
    awk = ["busybox", "awk", "-f", str(HERE / "network.awk")]
    read = subprocess.run(awk, input=text, check=True, capture_output=True).stdout.decode()
    assert read.splitlines() == [
        "52:54:00:aa:00:01 10.0.0.5/24 10.0.0.1 10.0.0.1 10.0.0.2",
        "52:54:00:aa:00:02 dhcp -",
        "52:54:00:aa:00:03 none -",
    ]


NETWORK_DATA = {
    "links": [
        {"id": "tap1", "vif_id": "v1", "type": "ovs", "mtu": 1442, "ethernet_mac_address": "FA:16:3E:00:00:01"},
        {"id": "tap2", "vif_id": "v2", "type": "ovs", "mtu": 1500, "ethernet_mac_address": "fa:16:3e:00:00:02"},
        {"id": "tap3", "vif_id": "v3", "type": "ovs", "mtu": None, "ethernet_mac_address": "fa:16:3e:00:00:03"},
    ],
    "networks": [
        {"id": "network0", "type": "ipv4_dhcp", "link": "tap1", "network_id": "n1"},
        {
            "id": "network1",
            "type": "ipv4",
            "link": "tap2",
            "ip_address": "10.1.2.4",
            "netmask": "255.255.255.0",
            "routes": [
                {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.1.2.1"},
                {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.1.2.9"},
            ],
            "network_id": "n2",
            "services": [{"type": "dns", "address": "9.9.9.9"}],
        },
        {"id": "network2", "type": "ipv6", "link": "tap2", "ip_address": "fd00::4", "netmask": "64", "routes": []},
        {
            "id": "network3",
            "type": "ipv4",
            "link": "tap3",
            "ip_address": "10.1.3.2",
            "netmask": "255.255.255.0",
            "routes": [],
        },
    ],
    "services": [],
}


def test_the_tiny_guest_reads_openstacks_network_data() -> None:
    awk = ["busybox", "awk", "-f", str(HERE / "network-data.awk")]
    text = json.dumps(NETWORK_DATA).encode()
    read = subprocess.run(awk, input=text, check=True, capture_output=True).stdout.decode()
    assert read.splitlines() == [
        "fa:16:3e:00:00:01 dhcp -",
        "fa:16:3e:00:00:02 10.1.2.4/255.255.255.0 10.1.2.1 9.9.9.9",
        "fa:16:3e:00:00:03 10.1.3.2/255.255.255.0 -",
    ]
