"""What libvirt is told, as XML, and what is read of its answers.

Every text gets in through ElementTree, which quotes it, so no name can become an element. Source: libvirt's "Domain XML format"
and "Backup XML format".
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from lxml import etree

from federation_member.middleware.console import printable
from federation_member.middleware.libvirt.disks import Disk

NAMESPACE = "urn:fedmesh:lease"
LEASE = f"{{{NAMESPACE}}}lease"
NAMES = uuid.UUID("7c0bd8f6-8d1e-4f1a-9d4e-0b9a1f1b6c55")  # of domains, made from their keys
TB_CACHE = 32  # MiB of translated code that emulation keeps for each machine
FIRST_VOLUME = "c"  # vda is the machine's disk, vdb the seed
LAST_VOLUME = "z"
ElementTree.register_namespace("fed", NAMESPACE)


@dataclass(frozen=True)
class Plug:
    """One interface of a machine, on a bridge; an isolated one reaches the bridge's host and router alone."""

    bridge: str
    outside: str
    mac: str
    isolated: bool


@dataclass(frozen=True)
class Domain:
    """One machine."""

    key: str
    owner: str
    title: str
    accelerator: Literal["kvm", "tcg"]
    emulator: Path
    vcpu: int
    ram_mb: int
    disk: Disk
    seed: Disk
    console: Path
    plugs: list[Plug]
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = field(default="")

    def to_xml(self) -> str:
        """The definition."""
        kvm = self.accelerator == "kvm"
        root = Element("domain", type="kvm" if kvm else "qemu")
        _text(root, "name", domain_name(self.key))
        _text(root, "uuid", str(uuid.uuid5(NAMES, self.key)))
        _text(root, "title", " ".join(printable(self.title).split()))
        SubElement(SubElement(root, "metadata"), LEASE, key=self.key, owner=self.owner)
        _text(root, "memory", str(self.ram_mb), unit="MiB")
        _text(root, "vcpu", str(self.vcpu))
        self._add_boot(root)
        features = SubElement(root, "features")
        SubElement(features, "acpi")
        if not kvm:
            _text(SubElement(features, "tcg"), "tb-cache", str(TB_CACHE), unit="MiB")
        SubElement(root, "cpu", mode="host-passthrough" if kvm else "maximum")
        SubElement(root, "clock", offset="utc")
        _text(root, "on_reboot", "restart")
        for what in ("on_poweroff", "on_crash"):
            _text(root, what, "destroy")
        self._add_devices(SubElement(root, "devices"))
        return ElementTree.tostring(root, encoding="unicode")

    def _add_boot(self, root: Element) -> None:
        system = SubElement(root, "os")
        _text(system, "type", "hvm", arch="x86_64", machine="pc")
        if self.kernel is None:
            SubElement(system, "boot", dev="hd")
            return
        _text(system, "kernel", str(self.kernel))
        if self.initrd is not None:
            _text(system, "initrd", str(self.initrd))
        _text(system, "cmdline", self.cmdline)

    def _add_devices(self, devices: Element) -> None:
        _text(devices, "emulator", str(self.emulator))
        devices.append(disk_element(self.disk, "vda"))
        devices.append(disk_element(self.seed, "vdb", readonly=True))
        for plug in self.plugs:
            interface = SubElement(devices, "interface", type="bridge")
            SubElement(interface, "source", bridge=plug.bridge)
            SubElement(interface, "target", dev=plug.outside)
            SubElement(interface, "mac", address=plug.mac)
            SubElement(interface, "model", type="virtio")
            if plug.isolated:
                SubElement(interface, "port", isolated="yes")
        serial = SubElement(devices, "serial", type="file")
        SubElement(serial, "source", path=str(self.console), append="on")
        random = SubElement(devices, "rng", model="virtio")
        _text(random, "backend", "/dev/urandom", model="random")
        SubElement(devices, "memballoon", model="none")
        SubElement(devices, "controller", type="usb", model="none")


def domain_name(key: str) -> str:
    """What libvirt calls the machine."""
    return f"fed-{key}"


def key_of(name: str) -> str | None:
    """The key of a machine by its domain's name, if it can be one of ours."""
    return name.removeprefix("fed-") if name.startswith("fed-") else None


def disk_element(disk: Disk, target: str, *, readonly: bool = False, serial: str = "") -> Element:
    """A disk of a machine."""
    element = Element("disk", type="file", device="disk")
    SubElement(element, "driver", name="qemu", type=disk.format, discard="unmap")
    SubElement(element, "source", file=str(disk.path))
    SubElement(element, "target", dev=target, bus="virtio")
    if readonly:
        SubElement(element, "readonly")
    if serial:
        _text(element, "serial", serial)
    return element


def attached_disk(disk: Disk, target: str, serial: str) -> str:
    """The definition of one more disk; the machine finds it as /dev/disk/by-id/virtio-SERIAL, too."""
    return ElementTree.tostring(disk_element(disk, target, serial=serial), encoding="unicode")


def backup(target: Path) -> str:
    """The order to copy a running machine's disk, as it is at one moment."""
    root = Element("domainbackup", mode="push")
    disks = SubElement(root, "disks")
    disk = SubElement(disks, "disk", name="vda", backup="yes", type="file")
    SubElement(disk, "driver", type="qcow2")
    SubElement(disk, "target", file=str(target))
    SubElement(disks, "disk", name="vdb", backup="no")
    return ElementTree.tostring(root, encoding="unicode")


def lease_of(description: str) -> tuple[str, str] | None:
    """Key and owner that a domain's metadata name, if they name any."""
    lease = _parse(description).find(f"metadata/{LEASE}")
    return None if lease is None else (lease.get("key", ""), lease.get("owner", ""))


def disks_of(description: str) -> dict[str, str]:
    """The targets of a domain's disks (`vda`), by the files that they are."""
    return {
        file: target
        for disk in _parse(description).iterfind("devices/disk")
        if (file := _attribute(disk, "source", "file")) and (target := _attribute(disk, "target", "dev"))
    }


def free_target(taken: set[str]) -> str | None:
    """A name for one more disk; None if there are too many."""
    names = (f"vd{chr(letter)}" for letter in range(ord(FIRST_VOLUME), ord(LAST_VOLUME) + 1))
    return next((name for name in names if name not in taken), None)


def _parse(text: str) -> etree._Element:
    """libvirt's XML; a guest has no way to write into it, and entities are left alone all the same."""
    return etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))


def _attribute(element: etree._Element, child: str, name: str) -> str:
    found = element.find(child)
    return "" if found is None else str(found.get(name, ""))


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text
