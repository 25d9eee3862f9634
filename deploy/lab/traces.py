"""What a lab leaves behind: nothing, and this looks whether that is so.

Taken while the lab runs, from outside; asked after its end. A namespace lives as long as a process or a mount holds it, so
processes and mounts are what is looked at. Seen from a process that shares none of the lab's namespaces.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from deploy.lab import cgroups
from deploy.lab.client import ended
from deploy.lab.launch import address
from deploy.lab.places import RUN
from deploy.lab.topology import DNS_ADDRESS, Plan, namespace

KINDS = ("mnt", "net", "pid", "ipc", "uts")
PATIENCE = 20.0  # seconds that the kernel may take to end what was killed


class Traces:
    """The processes of a running lab, and the places where it could leave something."""

    def __init__(self, name: str, pid: int) -> None:
        """Look at the lab `name` whose first process is `pid`."""
        self._name = name
        inside = {_namespace(pid, kind) for kind in KINDS} - {_namespace(os.getpid(), kind) for kind in KINDS}
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        members = [each for each in pids if inside & {_namespace(each, kind) for kind in KINDS}]
        # Descriptors, so that a new process under an old number is not mistaken for it.
        self._not_ours = [path for path in _namespace_files() if path.exists()]
        self._processes = {each: descriptor for each in members if (descriptor := _open(each)) is not None}

    @property
    def processes(self) -> list[int]:
        """All processes that share a namespace with the lab."""
        return list(self._processes)

    def left(self) -> list[str]:
        """Wait for the end of all processes, then name everything that is left."""
        left = [f"process {pid}" for pid, descriptor in self._processes.items() if not ended(descriptor, PATIENCE)]
        left += [f"control group {group}" for group in cgroups.groups(self._name)]
        if RUN.name in Path("/proc/self/mountinfo").read_text():
            left.append("a mount")
        left += [str(path) for path in (RUN, *_namespace_files()) if path.exists() and path not in self._not_ours]
        interfaces = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
        if DNS_ADDRESS in interfaces or "site-a" in interfaces:
            left.append("an interface")
        if address(self._name).replace("\0", "@") in Path("/proc/net/unix").read_text():
            left.append("the control socket")
        return left

    def close(self) -> None:
        """Let go of the processes."""
        for descriptor in self._processes.values():
            os.close(descriptor)


def _namespace_files() -> list[Path]:
    """Where ip-netns(8) would have left namespaces outside of the lab."""
    return [Path("/run/netns") / namespace(host) for host in Plan().hosts]


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _namespace(pid: int, kind: str) -> str:
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:  # it has ended, or it is somebody else's
        return ""
