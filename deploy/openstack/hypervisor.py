"""What profile `full` has besides: Open vSwitch and OVN without a kernel module, and a libvirtd, all with files of their own.

    machines (a Linux bridge of the host, the public network) ── fed-up ═ veth ═ fed-ovs ── br-ex ── OVN ── br-int ── guests

The switch runs in userspace (`datapath_type=netdev`), because few kernels in containers have its module. It then fixes no checksums:
what leaves `fed-up` towards the guests must carry whole ones, or TCP stalls while ping works.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deploy.lab import libvirtd
from deploy.openstack.config import PHYSICAL_NETWORK
from deploy.openstack.crew import Crew, Program
from deploy.openstack.layout import HOST, Cloud

SWITCH_SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
NORTH_SCHEMA = Path("/usr/share/ovn/ovn-nb.ovsschema")
SOUTH_SCHEMA = Path("/usr/share/ovn/ovn-sb.ovsschema")
UPLINK, PORT = "fed-up", "fed-ovs"  # the two ends of the cable between the host's bridge and the switch
LOG_NOWHERE = "--log-file=/dev/null"  # it is on stderr as well
NEEDED = ("/usr/sbin/ovs-vswitchd", "/usr/bin/ovn-northd", "/usr/bin/ovn-controller", "/usr/sbin/libvirtd")


async def start(cloud: Cloud, crew: Crew) -> None:
    """Start switch, network controller and hypervisor."""
    for program in await _databases(cloud, crew):
        await crew.start(program)
    await crew.run("ovs-vsctl", _configure(cloud))
    await crew.run("cable", ["sh", "-e", "-c", _cable(cloud)])
    await crew.start(_daemon(cloud, "ovs-vswitchd", f"unix:{cloud.socket('db')}"))
    north, south = (f"--ovn{name}-db=unix:{cloud.socket(f'ovn-{name}')}" for name in ("nb", "sb"))
    await crew.start(_daemon(cloud, "ovn-northd", north, south))
    # It has no option for its control socket, and connects to the others whenever they are there.
    await crew.start(Program("ovn-controller", ["ovn-controller", f"unix:{cloud.socket('db')}", LOG_NOWHERE], None))
    await crew.start(_libvirtd(cloud))


def end_guests(cloud: Cloud) -> None:
    """Guests outlive their hypervisor's daemon; a cloud that is taken down takes its own along."""
    for file in (cloud.state / "libvirt/run/qemu").glob("*.pid"):
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int(file.read_text())
            if str(cloud.state) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)
            file.unlink()


async def _databases(cloud: Cloud, crew: Crew) -> list[Program]:
    """The switch's own settings are made anew at each start; what OVN knows of networks is kept."""
    (cloud.data / "ovn").mkdir(exist_ok=True)
    settings = cloud.state / "run/switch.db"
    settings.unlink(missing_ok=True)
    found = {
        "db": (settings, SWITCH_SCHEMA),
        "ovn-nb": (cloud.data / "ovn/nb.db", NORTH_SCHEMA),
        "ovn-sb": (cloud.data / "ovn/sb.db", SOUTH_SCHEMA),
    }
    for file, schema in found.values():
        if not file.exists():
            await crew.run("ovsdb-tool", ["ovsdb-tool", "create", file, schema])
    return [
        Program(
            f"ovsdb-{name}",
            ["ovsdb-server", file, f"--remote=punix:{cloud.socket(name)}", f"--unixctl={file}.ctl"],
            cloud.socket(name),
        )
        for name, (file, _) in found.items()
    ]


def _configure(cloud: Cloud) -> Sequence[str]:
    ids = {
        "system-id": HOST,
        "hostname": HOST,
        "ovn-remote": f"unix:{cloud.socket('ovn-sb')}",
        "ovn-encap-type": "geneve",
        "ovn-encap-ip": cloud.address,
        "ovn-bridge-datapath-type": "netdev",
        "ovn-bridge-mappings": f"{PHYSICAL_NETWORK}:br-ex",
        "ovn-cms-options": "enable-chassis-as-gw",
    }
    line = ["ovs-vsctl", f"--db=unix:{cloud.socket('db')}", "--no-wait", "init", "--", "set", "Open_vSwitch", "."]
    line += [f"external_ids:{name}={value}" for name, value in ids.items()]
    for bridge, options in (("br-ex", []), ("br-int", ["fail-mode=secure"])):
        line += ["--", "add-br", bridge, "--", "set", "bridge", bridge, "datapath_type=netdev", *options]
    return [*line, "--", "add-port", "br-ex", PORT]


def _cable(cloud: Cloud) -> str:
    return f"""
        ip link delete {UPLINK} 2>/dev/null || true
        ip link add {UPLINK} type veth peer name {PORT}
        ethtool -K {UPLINK} tx off >/dev/null
        ip link set {UPLINK} master {cloud.uplink} up
        ip link set {PORT} up
    """


def _daemon(cloud: Cloud, name: str, *arguments: str) -> Program:
    control = cloud.socket(name)
    return Program(name, [name, *arguments, f"--unixctl={control}", LOG_NOWHERE], control)


def _libvirtd(cloud: Cloud) -> Program:
    folder = cloud.state / "libvirt"
    libvirtd.write(folder)
    return Program("libvirtd", libvirtd.command(folder), folder / "libvirt-sock")
