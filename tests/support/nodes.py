"""Machines for tests of the federation kit: a root file system of their own over this machine's /usr, in namespaces that end with the test.

with switched("10.1.1.2", "10.1.1.3") as (a, e):
    a.write("/usr/local/…"); a.run("ip address"); a.kit("apply", conf)
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from fedkit.node.archive import archive
from fedkit.topology.model import Topology

FOLDERS = ["etc", "home", "root", "opt", "mnt", "proc", "sys", "dev", "usr", "var/lib", "var/cache", "run", "tmp"]
LINKS = ("bin", "sbin", "lib", "lib64")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse")
FILES = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nfrr:x:998:998::/nonexistent:/usr/sbin/nologin\n"
    "nobody:x:65534:65534::/nonexistent:/bin/false\n",
    "group": "root:x:0:\nfrr:x:998:\nfrrvty:x:997:frr\nnogroup:x:65534:\n",
    "shadow": "root:*:19000:0:99999:7:::\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
KIT, CONF, STATE = "/opt/kit.pyz", "/opt/client.conf", "/var/lib/federation"
# The first process is a shell that waits, so that it takes leave of every orphan.
BEGIN = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
[ -d usr/bin ] || mount --rbind -o ro /usr usr
mount -t proc proc proc
mount -t tmpfs -o mode=755 dev dev
for device in $2; do : >dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/shm dev/pts
ip link set lo up
exec chroot . /bin/sh -c 'echo ready; while :; do sleep 1 & wait; done'
"""
DONE = "\nthis node is as it shall be\n"
PATIENCE = 90.0  # seconds; a loaded machine is slow
Tree = dict[str, str]


@dataclass
class Node:
    """One machine; `pid` is its first process."""

    root: Path
    pid: int

    def run(self, *command: str, check: bool = True, text: str | None = None) -> str:
        """What a command prints there."""
        inside = ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", "-r", "-w", *command]
        done = subprocess.run(inside, capture_output=True, text=True, input=text, timeout=PATIENCE, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def sh(self, command: str, check: bool = True) -> str:
        """The same of the shell."""
        return self.run("/bin/sh", "-c", command, check=check)

    def by(self, user: str, command: str) -> str:
        """The same by somebody."""
        group = self.run("id", "-g", user).strip()
        return self.run("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "/bin/sh", "-c", command)

    def kit(self, *words: str, conf: str | None = None, check: bool = True, patience: float = 60) -> str:
        """Run the kit; what it says."""
        if conf is not None:
            (self.root / CONF.lstrip("/")).write_text(conf)
        before = [] if words[0] in ("ask", "status", "serve") else ["--patience", str(patience)]
        said = self.run("/usr/bin/python3", "-I", KIT, words[0], "--conf", CONF, *before, *words[1:], check=False)
        log = self.root / "tmp/federate"
        told = log.read_text() if log.exists() else ""
        if check and words[0] == "apply":
            assert DONE in told, told + said
        assert words[0] != "undo" or not said, said
        return said if words[0] != "apply" else told

    def asks(self, *words: str) -> Any:
        """What the control network answers to somebody at this node."""
        return json.loads(self.kit("ask", *words))

    def tree(self) -> Tree:
        """All its files: kind, mode, owner and content."""
        return tree(self.root)

    def kernel(self) -> list[str]:
        """Its routes, mounts, name, settings, and processes."""
        mounts = sorted(line.split()[4] for line in Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines())
        return [
            self.run("ip", "route").replace(" linkdown", ""),  # of a wire that has not noticed its other end yet
            self.run("ip", "-br", "link"),
            self.run("hostname"),
            self.run("cat", "/proc/sys/net/ipv4/ip_forward"),
            *mounts,
            *sorted(self.run("ps", "-e", "-o", "comm=").split()),
        ]


def tree(root: Path) -> Tree:
    """All files below, except what is mounted there by tests."""
    found = {}
    for folder, names, files in os.walk(root):
        if Path(folder) == root:
            names[:] = [name for name in names if name not in ("usr", "proc", "dev", "sys")]  # mounts, or never written
        for name in (*names, *files):
            path = Path(folder, name)
            info = path.lstat()
            content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
            found[str(path.relative_to(root))] = f"{info.st_mode:o} {info.st_uid}:{info.st_gid} {content}"
    return found


def make_root(root: Path) -> None:
    """A bare one."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in LINKS:
        if not (root / name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name, text in FILES.items():
        (root / "etc" / name).write_text(text)
    (root / "etc/shadow").chmod(0o640)
    root.chmod(0o755)
    (root / "tmp").chmod(0o1777)
    shutil.copy("/etc/ld.so.cache", root / "etc/ld.so.cache")
    (root / KIT.lstrip("/")).write_bytes(archive())
    (root / CONF.lstrip("/")).write_text("")


@contextmanager
def node(base: Path | None = None) -> Iterator[Node]:
    """One machine without a network; with a copy of `base` if that is given, else with this machine's /usr."""
    with tempfile.TemporaryDirectory(prefix="node-") as folder:
        root = Path(folder)
        if base is None:
            make_root(root)
        else:
            shutil.copytree(base, root, symlinks=True, dirs_exist_ok=True)
        argv = ["unshare", "-m", "-n", "-p", "-u", "-i", "--fork", "--kill-child", "sh", "-c", BEGIN, "sh", folder]
        with subprocess.Popen([*argv, " ".join(DEVICES)], stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                yield Node(root, _child(process.pid))
            finally:
                process.send_signal(signal.SIGKILL)  # with it its child, and with that all that is in its namespaces
                process.wait()
        _until_gone(root)


@contextmanager
def switched(*addresses: str) -> Iterator[Sequence[Node]]:
    """Machines with these addresses (of a /24 each) on one switch, which the first of them holds."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(node()) for _ in addresses]
        first = nodes[0]
        first.run("ip", "link", "add", "eth0", "type", "bridge")
        for number, other in enumerate(nodes[1:]):
            plug(first, "eth0", f"port{number}", other, "eth0")
        for each, address in zip(nodes, addresses, strict=True):
            each.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
            each.run("ip", "link", "set", "eth0", "up")
        yield nodes


@contextmanager
def wired(topology: Topology) -> Iterator[dict[str, Node]]:
    """The machines of a topology, by name, on its links and LANs: a bridge each, in a namespace of their own."""
    with ExitStack() as stack:
        switch = stack.enter_context(node())
        bridges = {substrate.name: f"br{number}" for number, substrate in enumerate(topology.substrates)}
        for bridge in bridges.values():
            switch.run("ip", "link", "add", bridge, "type", "bridge")
            switch.run("ip", "link", "set", bridge, "up")
        nodes = {computer.name: stack.enter_context(node()) for computer in topology.computers}
        ports = count()
        for computer in topology.computers:
            for number, interface in enumerate(computer.interfaces):
                device, each = f"eth{number}", nodes[computer.name]
                plug(switch, bridges[interface.substrates[0]], f"port{next(ports)}", each, device)
                each.run("ip", "address", "add", f"{interface.ip4}/{interface.netmask}", "dev", device)
                each.run("ip", "link", "set", device, "up")
        yield nodes


def plug(switch: Node, bridge: str, port: str, other: Node, device: str) -> None:
    """Put another machine on a bridge; its process is known by the number that it has here."""
    inside = ["nsenter", "-t", str(switch.pid), "-n", "ip", "link"]
    made = [*inside, "add", port, "type", "veth", "peer", device, "netns", str(other.pid)]
    subprocess.run(made, check=True, timeout=PATIENCE)
    subprocess.run([*inside, "set", port, "master", bridge, "up"], check=True, timeout=PATIENCE)


def until(what: Any, says: str) -> None:
    """Wait for something to hold."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, f"never: {says}"
        time.sleep(0.1)


def _child(pid: int) -> int:
    """The first process of the namespace that `unshare` made."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.01)
    raise AssertionError("the machine does not come up")


def _until_gone(root: Path) -> None:
    """A namespace ends a moment after its first process, and with it its mounts."""
    until(lambda: str(root) not in Path("/proc/self/mountinfo").read_text(), f"{root} is free")
