"""What libvirt is told: nothing that a stranger names can become an element or attribute of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from federation_member.middleware.libvirt import xml
from federation_member.middleware.libvirt.disks import Disk

HOSTILE = st.text(max_size=60) | st.sampled_from(
    [
        "</title><devices/>",
        "]]>",
        "<!ENTITY x SYSTEM 'file:///etc/passwd'>",
        '" evil="1',
        "&x;",
        "\0",
        "\ud800",
        "\ufffe",
    ]
)
DOMAIN = xml.Domain(
    key="key",
    owner="site",
    title="box for alice",
    accelerator="tcg",
    emulator=Path("/usr/bin/qemu-system-x86_64"),
    vcpu=2,
    ram_mb=256,
    disk=Disk(Path("/d/disk.qcow2"), "qcow2"),
    seed=Disk(Path("/d/seed.iso"), "raw"),
    console=Path("/d/console.log"),
    plugs=[xml.Plug("br0", "fvm1", "02:fe:0a:00:00:01", True), xml.Plug("fvb1", "fvp1n1", "02:fe:0a:08:00:01", False)],
)


def shape(text: str) -> list[tuple[str, list[str]]]:
    """All elements in order with the names of their attributes."""
    return [(element.tag, sorted(element.attrib)) for element in ElementTree.fromstring(text).iter()]


@given(HOSTILE)
def test_no_title_changes_the_shape(title: str) -> None:
    hostile = dataclasses.replace(DOMAIN, title=title).to_xml()
    assert shape(hostile) == shape(DOMAIN.to_xml())


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True))
def test_a_domain_says_whose_it_is(key: str) -> None:
    text = dataclasses.replace(DOMAIN, key=key).to_xml()
    assert xml.lease_of(text) == (key, "site")
    assert xml.key_of(str(ElementTree.fromstring(text).findtext("name"))) == key


def test_others_domains_are_nobodys() -> None:
    assert xml.lease_of("<domain><metadata/></domain>") is None
    assert xml.lease_of("<domain/>") is None
    assert xml.key_of("web-server") is None


def test_disks_are_found_by_their_files_and_new_ones_have_free_names() -> None:
    found = xml.disks_of(DOMAIN.to_xml())
    assert found == {"/d/disk.qcow2": "vda", "/d/seed.iso": "vdb"}
    assert xml.free_target(set(found.values())) == "vdc"
    assert xml.free_target({"vdc", "vde"}) == "vdd"
    assert xml.free_target({f"vd{chr(letter)}" for letter in range(ord("a"), ord("z") + 1)}) is None


def test_strangers_are_isolated_on_the_intranet_and_friends_meet_in_private_networks() -> None:
    interfaces = ElementTree.fromstring(DOMAIN.to_xml()).findall("devices/interface")
    assert [interface.find("port") is not None for interface in interfaces] == [True, False]


def test_emulation_is_bounded_and_a_kernel_is_started_without_a_boot_loader() -> None:
    emulated = ElementTree.fromstring(DOMAIN.to_xml())
    assert emulated.get("type") == "qemu"
    assert emulated.findtext("features/tcg/tb-cache") == "32"
    assert emulated.find("os/boot") is not None
    direct = dataclasses.replace(DOMAIN, accelerator="kvm", kernel=Path("/k"), initrd=Path("/i"), cmdline="quiet")
    started = ElementTree.fromstring(direct.to_xml())
    assert started.get("type") == "kvm"
    assert [started.findtext(f"os/{name}") for name in ("kernel", "initrd", "cmdline")] == ["/k", "/i", "quiet"]
    assert started.find("os/boot") is None
    assert started.find("features/tcg") is None
