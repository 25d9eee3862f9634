"""What is asked of libvirt about one machine; each function blocks, and runs in a thread (`Hypervisor.call`)."""

from __future__ import annotations

from enum import Enum, auto
from pathlib import Path
from typing import Any

import libvirt

from federation_member.middleware.contract import MiddlewareError
from federation_member.middleware.libvirt import xml
from federation_member.middleware.libvirt.disks import Disk
from fedkit.protocol.lending import Power

POWERS = {
    libvirt.VIR_DOMAIN_PAUSED: Power.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: Power.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: Power.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: Power.STOPPED,
}
UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
CONFIG, LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE


class Copying(Enum):
    """How far the copy of a running machine's disk is."""

    UNDER_WAY = auto()
    DONE = auto()
    FAILED = auto()


def find(connection: Any, key: str) -> Any:
    """The domain of this machine, or None."""
    try:
        return connection.lookupByName(xml.domain_name(key))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def power(connection: Any, key: str) -> Power | None:
    """How it is; None if there is no such machine."""
    domain = find(connection, key)
    return None if domain is None else POWERS.get(domain.state()[0], Power.RUNNING)


def powers(connection: Any, owner: str) -> dict[str, Power]:
    """How all machines of this owner are, by key."""
    found = {}
    for domain, facts in connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0):
        name = domain.name()
        if (key := xml.key_of(name)) is not None and _belongs(domain, key, owner):
            found[key] = POWERS.get(facts.get("state.state"), Power.RUNNING)
    return found


def _belongs(domain: Any, key: str, owner: str) -> bool:
    """Its metadata, not its name, says whose it is."""
    try:
        return xml.lease_of(domain.XMLDesc()) == (key, owner)
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return False
        raise


def launch(connection: Any, description: str) -> None:
    """Define the machine and start it; one that runs is left alone."""
    domain = connection.defineXML(description)
    if not domain.isActive():
        domain.create()


def end(connection: Any, key: str) -> None:
    """Pull the plug and forget the machine; nothing there is success."""
    if (domain := find(connection, key)) is not None:
        pull(domain)
        domain.undefineFlags(UNDEFINE)


def pull(domain: Any) -> None:
    """Pull the plug; one that does not run is left alone."""
    try:
        if domain.isActive():
            domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:  # it ended just now
            raise


def set_power(connection: Any, key: str, wanted: Power) -> Power | None:
    """Start, resume or pause; for STOPPED press the button. Return how it was before; None if there is no such machine."""
    domain = find(connection, key)
    if domain is None:
        return None
    before = POWERS.get(domain.state()[0], Power.RUNNING)
    match before, wanted:
        case Power.STOPPED, Power.RUNNING:
            domain.create()
        case Power.PAUSED, Power.RUNNING:
            domain.resume()
        case Power.RUNNING, Power.PAUSED:
            domain.suspend()
        case Power.PAUSED, Power.STOPPED:
            domain.resume()  # it cannot hear the button otherwise
            domain.shutdown()
        case Power.RUNNING, Power.STOPPED:
            domain.shutdown()
    return before


def pull_plug(connection: Any, key: str) -> None:
    """Stop it without asking; nothing there is success."""
    if (domain := find(connection, key)) is not None:
        pull(domain)


def attached(connection: Any, key: str, path: Path) -> str | None:
    """What the file at `path` is called in the machine; None if it is not in there."""
    domain = find(connection, key)
    return None if domain is None else xml.disks_of(domain.XMLDesc()).get(str(path))


def attach(connection: Any, key: str, disk: Disk, serial: str) -> str | None:
    """Put a disk into the machine, running or not; return what it is called there, or None if there are too many."""
    domain = find(connection, key)
    if domain is None:
        raise MiddlewareError("The machine is gone.")
    present = xml.disks_of(domain.XMLDesc())
    if str(disk.path) in present:
        return present[str(disk.path)]
    target = xml.free_target(set(present.values()))
    if target is not None:
        domain.attachDeviceFlags(xml.attached_disk(disk, target, serial), CONFIG | (LIVE if domain.isActive() else 0))
    return target


def detach(connection: Any, key: str, path: Path) -> bool:
    """Take a disk out of the machine; False while a running machine has not let go of it."""
    domain = find(connection, key)
    if domain is None:
        return True
    for flags, where in ((libvirt.VIR_DOMAIN_XML_INACTIVE, CONFIG), (0, LIVE)):
        if where == LIVE and not domain.isActive():
            continue
        target = xml.disks_of(domain.XMLDesc(flags)).get(str(path))
        if target is not None:
            domain.detachDeviceFlags(xml.attached_disk(Disk(path, "qcow2"), target, ""), where)
    return str(path) not in xml.disks_of(domain.XMLDesc())


def begin_copy(connection: Any, key: str, target: Path) -> bool:
    """Let a running machine's disk be copied to `target`; False if it does not run."""
    domain = find(connection, key)
    if domain is None or not domain.isActive():
        return False
    domain.backupBegin(xml.backup(target), None)
    return True


def copying(connection: Any, key: str) -> Copying:
    """How far `begin_copy` is."""
    domain = find(connection, key)
    if domain is None or not domain.isActive():
        return Copying.FAILED
    if domain.jobInfo()[0] != libvirt.VIR_DOMAIN_JOB_NONE:
        return Copying.UNDER_WAY
    told = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED | libvirt.VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED)
    return Copying.DONE if told.get("type") == libvirt.VIR_DOMAIN_JOB_COMPLETED else Copying.FAILED


def abort_copy(connection: Any, key: str, target: Path) -> None:
    """End what `begin_copy` began with this target; nothing under way is success."""
    domain = find(connection, key)
    if domain is None or not domain.isActive():
        return
    try:
        if str(target) in domain.backupGetXMLDesc():
            domain.abortJob()
    except libvirt.libvirtError as error:
        if error.get_error_code() not in (libvirt.VIR_ERR_NO_DOMAIN_BACKUP, libvirt.VIR_ERR_OPERATION_INVALID):
            raise
