"""A researcher's own machine: a network namespace with one wire, and a file system on which what root keeps is its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ADDRESS = "10.77.0.250/24"
NOBODY = 65534
SETUP = """
set -e
mount -t tmpfs none /var/lib
mount --bind "$1" /etc/hosts
mknod -m 666 /var/lib/tun c 10 200  # as udev makes it
mount --bind /var/lib/tun /dev/net/tun
ip link set lo up
echo ready
exec sleep infinity
"""
SEEN = """
exec 2>/dev/null
ip -d link; ip address; ip -4 route show table all; ip -6 route show table all; ip rule; cat /etc/hosts; ls -R /var/lib
"""


@dataclass(frozen=True)
class Desk:
    """`process` is one that lives there; `environment` is how `fed` finds its member."""

    process: int
    environment: Mapping[str, str]

    def words(self, *command: str, user: int = 0) -> list[str]:
        """A command line that runs there, as whom it is told."""
        drop = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups") if user else ()
        return ["nsenter", "-t", str(self.process), "-n", "-m", *drop, *command]

    def fed(self, *arguments: str, user: int = 0) -> list[str]:
        """The same of `fed`."""
        return self.words(
            "env", "HOME=/var/lib", "XDG_STATE_HOME=/var/lib", sys.executable, "-m", "deploy.cli", *arguments, user=user
        )

    async def start(self, words: list[str]) -> Process:
        """Run something there."""
        return await asyncio.create_subprocess_exec(
            *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=os.environ | self.environment
        )

    async def does(self, words: list[str]) -> tuple[int, str]:
        """The status of what runs there, and all that it prints."""
        process = await self.start(words)
        out, err = await process.communicate()
        return process.returncode or 0, out.decode() + err.decode()

    async def looks(self) -> str:
        """Links, addresses, routes, rules, names and files."""
        return (await self.does(self.words("sh", "-c", SEEN)))[1]


@contextmanager
def desk(bridge: str, hosts: Path, environment: Mapping[str, str]) -> Iterator[Desk]:
    """One that is wired to a bridge of this namespace; all of it goes with its first process."""
    hosts.write_text("127.0.0.1 localhost\n# mine\n10.9.9.9 printer\n")
    words = ["unshare", "--net", "--mount", "--propagation", "private", "--", "sh", "-c", SETUP, "sh", str(hosts)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            outer = f"desk{process.pid}"[:15]
            lines = [
                f"link add {outer} type veth peer name eth0 netns {process.pid}",
                f"link set {outer} master {bridge} up",
                f"link set {bridge} address 02:00:00:00:00:01",  # else it is another one when machines come and go
            ]
            subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
            inner = f"link set eth0 addrgenmode none\naddress add {ADDRESS} dev eth0\nlink set eth0 up\nroute add default via 10.77.0.1\n"
            enter = ["nsenter", "-t", str(process.pid), "-n", "ip", "-batch", "-"]
            subprocess.run(enter, input=inner, text=True, check=True)
            yield Desk(process.pid, environment)
        finally:
            process.kill()
