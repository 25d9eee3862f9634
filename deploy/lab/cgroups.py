"""Control groups: the one thing of the lab that is not inside of its namespaces.

Limits of lent machines need the machine's real control groups, and those outlive every process. So the lab gets a group of its
own in each hierarchy, sees that one as the root (a bind mount in its mount namespace), and a janitor outside removes it
when the lab has gone, however it went: the janitor waits on a pipe that only the lab's first two processes hold open.
Only as root; without root the lab has no control groups.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from contextlib import suppress
from pathlib import Path

INHERITED = ("cpuset.cpus", "cpuset.mems")  # of version 1, where a new group starts without any
CONTROLLERS = "+cpu +memory +pids"  # of version 2, where a group gives its children only what it is told to
JANITOR = """
cat >/dev/null # until the lab has gone
for attempt in $(seq 200); do # its last processes may still be on their way out
	left=no
	for group; do
		if [ -d "$group" ]; then
			find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || left=yes
		fi
	done
	[ $left = yes ] || exit 0
	sleep 0.05
done
"""


def groups(name: str) -> list[Path]:
    """The groups of this user's labs called `name`, in all hierarchies: of one that runs or has just ended."""
    return [group for root in _hierarchies() for group in root.glob(f"fedmesh-lab.{os.getuid()}.{name}.*")]


def make(name: str) -> list[Path]:
    """Make groups for a new lab (no other of that name runs) and return them.

    Their names are new each time: the janitor of an earlier lab may be at work still. Where even that was killed, what
    it should have removed is removed here.
    """
    for stale in groups(name):
        for group in (*sorted(stale.rglob("*/"), reverse=True), stale):
            with suppress(OSError):
                group.rmdir()
    token = secrets.token_hex(4)
    made = []
    for root in _hierarchies():
        group = root / f"fedmesh-lab.{os.getuid()}.{name}.{token}"
        with suppress(OSError):  # a hierarchy that we may not write: machines have no limits of that kind
            group.mkdir()
            _enable(group)
            made.append(group)
    return made


def watch(made: list[Path]) -> tuple[subprocess.Popen[bytes], int]:
    """Start the janitor; it works when all copies of the returned descriptor are closed."""
    reading, writing = os.pipe()
    try:
        # In a session of its own, away from any terminal and from whoever kills process groups; and it holds nobody's
        # output open, because it outlives `fed demo up`.
        janitor = subprocess.Popen(
            ["sh", "-c", JANITOR, "janitor", *made],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(reading)
    return janitor, writing


def _hierarchies() -> list[Path]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(before.split()[4]))
    return found


def _enable(group: Path) -> None:
    for name in INHERITED:
        if (group / name).exists():
            (group / name).write_text((group.parent / name).read_text())
    for parent in (group.parent, group):
        control = parent / "cgroup.subtree_control"
        if control.exists() and "memory" in (parent / "cgroup.controllers").read_text().split():
            control.write_text(CONTROLLERS)
