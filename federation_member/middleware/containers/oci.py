"""What runc is told about a machine (OCI runtime specification 1.0): who it is, what it may do, what it may use.

The inside is hostile. It gets a user namespace, no capability over anything outside of it and only the few that a system
with accounts and an ssh server needs, no new privileges through set-uid files, no device but the harmless ones, no /sys,
a masked /proc, and a filter for system calls that machines of strangers have no use for.

A machine that carries frames has its network inside of its user namespace (launch.py), may administer it, and may make
interfaces that end in a program. The kernel's packet filter and IPsec stay closed to it: they are not needed for that, and holes
have been found there again and again.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any

from federation_member.middleware.containers.ids import Extents, Ids

CAPABILITIES = [
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL"),
    *("CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"),
]
NETWORK_CAPABILITIES = ["CAP_NET_ADMIN", "CAP_NET_RAW"]
CAPABILITY_NUMBERS = {  # linux/capability.h
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_SETFCAP": 31,
}
MASKED = [
    f"/proc/{name}"
    for name in (
        "acpi",
        "asound",
        "interrupts",
        "kcore",
        "keys",
        "latency_stats",
        "sched_debug",
        "scsi",
        "timer_list",
        "timer_stats",
    )
]
READ_ONLY = [f"/proc/{name}" for name in ("bus", "fs", "irq", "sys", "sysrq-trigger")]
BUT_NETWORK = [f"/proc/sys/{name}" for name in ("abi", "crypto", "debug", "dev", "fs", "kernel", "user", "vm")]
# What the kernel would mostly refuse anyway; refused here too because these are where its holes have been.
REFUSED_CALLS = """
    acct add_key bpf clock_adjtime clock_settime create_module delete_module finit_module fsconfig fsmount fsopen fspick
    get_kernel_syms init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load
    keyctl lookup_dcookie mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl open_by_handle_at open_tree
    perf_event_open pivot_root process_vm_readv process_vm_writev query_module quotactl quotactl_fd reboot request_key setns
    settimeofday swapoff swapon sysfs syslog umount umount2 unshare uselib userfaultfd ustat vhangup vm86 vm86old
""".split()  # noqa: SIM905  as a literal it would fill a screen
NAMESPACE_FLAGS = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
ENOSYS, EPERM = 38, 1
EQUAL, MASKED_EQUAL = "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"
AF_NETLINK = 16
CLOSED_FAMILIES = {"NETLINK_XFRM": 6, "NETLINK_NETFILTER": 12}
TUN = (10, 200)  # Linux allocated devices: major, minor
PERIOD = 100_000  # microseconds: over which the share of processor time is counted
OPEN_FILES = 4096  # per process


@dataclass(frozen=True)
class Network:
    """What lets a machine administer its own network: the file of the user namespace that owns it, the device for interfaces."""

    user_namespace: str
    tun: str


def config(
    *,
    root: str,
    hostname: str,
    ids: Ids,
    processes: int,
    cgroup: str | None,
    memory_bytes: int,
    vcpu: int,
    network: Network | None = None,
) -> dict[str, Any]:
    """Return the content of `config.json`; `cgroup` is None where no control groups can be used.

    `network` is there if the machine may administer its own.
    """
    namespaces = [{"type": name} for name in ("pid", "mount", "uts", "ipc", "cgroup")]
    namespaces.append({"type": "user"} if network is None else {"type": "user", "path": network.user_namespace})
    linux: dict[str, Any] = {
        # No network namespace here: the launcher's is inherited.
        "namespaces": namespaces,
        "uidMappings": _mapping(ids.uids),
        "gidMappings": _mapping(ids.gids),
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY
        if network is None
        else [path for path in READ_ONLY if path != "/proc/sys"] + BUT_NETWORK,
        "rootfsPropagation": "private",
        "seccomp": seccomp(one_id=ids.only_one),
    }
    if cgroup is not None:
        linux |= {"cgroupsPath": cgroup, "resources": _resources(processes, memory_bytes, vcpu, network)}
    capabilities = CAPABILITIES if network is None else CAPABILITIES + NETWORK_CAPABILITIES
    return {
        "ociVersion": "1.0.2",
        "hostname": hostname,
        "root": {"path": root},
        "mounts": _mounts(one_id=ids.only_one) + ([] if network is None else [_tun(network)]),
        "process": {
            "args": ["/bin/sh", "/etc/fed/init"],
            "cwd": "/",
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "rlimits": [
                rlimit("RLIMIT_NOFILE", OPEN_FILES),
                rlimit("RLIMIT_NPROC", processes),
                rlimit("RLIMIT_CORE", 0),
            ],
            "oomScoreAdj": 500,
        },
        "linux": linux,
    }


def _mapping(extents: Extents) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in extents]


def _mounts(*, one_id: bool) -> list[dict[str, Any]]:
    terminal = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": terminal if one_id else [*terminal, "gid=5"],
        },
        {
            "destination": "/dev/shm",  # noqa: S108  the machine's own
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    ]


def _tun(network: Network) -> dict[str, Any]:
    return {
        "destination": "/dev/net/tun",
        "type": "bind",
        "source": network.tun,
        "options": ["bind", "nosuid", "noexec"],
    }


def _resources(processes: int, memory_bytes: int, vcpu: int, network: Network | None) -> dict[str, Any]:
    devices: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    if network is not None:
        major, minor = TUN
        devices.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rw"})
    return {
        "devices": devices,  # runc adds null, zero, full, random, urandom, tty, ptmx
        "memory": {"limit": memory_bytes},
        "cpu": {"quota": vcpu * PERIOD, "period": PERIOD},
        "pids": {"limit": processes},
    }


def rlimit(name: str, value: int) -> dict[str, Any]:
    """A limit, as low as it is for ourselves if that is lower."""
    hard = resource.getrlimit(getattr(resource, name))[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    return {"type": name, "soft": value, "hard": value}


def seccomp(*, one_id: bool) -> dict[str, Any]:
    """Which system calls are refused."""
    rules: list[dict[str, Any]] = [
        {"names": REFUSED_CALLS, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM},
        # Its flags are behind a pointer, out of a filter's sight; ENOSYS makes the C library use clone instead.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS},
        # Terminal injection into whoever shares the terminal.
        {
            "names": ["ioctl"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EPERM,
            "args": [{"index": 1, "value": 0xFFFFFFFF, "valueTwo": 0x5412, "op": MASKED_EQUAL}],
        },
    ]
    rules += [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EPERM,
            "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": MASKED_EQUAL}],
        }
        for flag in (1 << bit for bit in range(32))
        if flag & NAMESPACE_FLAGS
    ]
    rules += [
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": EPERM,
            "args": [
                {"index": 0, "value": AF_NETLINK, "op": EQUAL},
                {"index": 2, "value": family, "op": EQUAL},
            ],
        }
        for family in CLOSED_FAMILIES.values()
    ]
    if one_id:
        # With a single uid the kernel refuses setgroups, and Dropbear then refuses the login. There is no group to
        # set: say yes and do nothing.
        rules.append({"names": ["setgroups"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0})
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
