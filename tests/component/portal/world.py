"""Two sites with a host and a portal each, and a line between the portals: network namespaces, real taps, real programs.

    host-a ── eth1 │ portal-a │ wan ═══ line ═══ wan │ portal-b │ eth1 ── host-b

Each crossing has a veth pair and addresses of its own. The line is a veth pair, or an emulator's (`line.py`) with delay and loss.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

SIDES = ("a", "b")
WAN = {"a": "192.0.2.1", "b": "192.0.2.2"}
PORT = 2022
PATIENCE = 60.0  # seconds
ETH_P_ALL = 3
PACKET_AUXDATA = 8
SOL_PACKET = 263
VLAN_VALID = 0x10


def run(*command: str, check: bool = True, timeout: float = 120) -> str:
    """What a program prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def eventually(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Wait until it is so; return what it returned."""
    end = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {patience} s: {what}"
        time.sleep(0.05)
    return found


@dataclass
class World:
    """The namespaces, named by a random word so that runs do not meet."""

    folder: Path
    word: str = field(default_factory=lambda: f"p{secrets.token_hex(3)}")
    tags: tuple[int, ...] = (3,)
    stack: ExitStack = field(default_factory=ExitStack)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def ns(self, name: str) -> str:
        """The namespace of host-a, portal-b …"""
        return f"{self.word}-{name}"

    def at(self, name: str, *command: str, check: bool = True, timeout: float = 120) -> str:
        """What a program prints there."""
        return run("ip", "netns", "exec", self.ns(name), *command, check=check, timeout=timeout)

    def address(self, side: str, tag: int | None = None) -> str:
        """Of the host at a side."""
        return f"10.{(tag or self.tags[0]) // 250}.{(tag or self.tags[0]) % 250}.{1 + SIDES.index(side)}"

    def build(self, wan: bool = True) -> None:
        """Make everything; `wan`: with a plain line."""
        for name in ("host-a", "portal-a", "host-b", "portal-b"):
            run("ip", "netns", "add", self.ns(name))
            self.at(name, "ip", "link", "set", "lo", "up")
            self.at(name, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6")
        for side in SIDES:
            for tag in self.tags:
                self._wire(side, tag)
        if wan:
            run("ip", "link", "add", "wan", "netns", self.ns("portal-a"), "type", "veth",
                "peer", "name", "wan", "netns", self.ns("portal-b"))  # fmt: skip
            for side in SIDES:
                self.wan_address(side)

    def long_line(self, delay: float, **shape: float) -> None:
        """Let the line be an emulated one: `delay` seconds one way; see `tests/support/line.py`."""
        options = [f"--{key}={value}" for key, value in {"delay": delay, **shape}.items()]
        line = subprocess.Popen(
            [sys.executable, "-m", "tests.support.line", self.ns("portal-a"), self.ns("portal-b"), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.running.insert(0, line)
        assert line.stdout is not None
        assert line.stdout.readline() == b"ready\n"
        for side in SIDES:
            self.wan_address(side)

    def wan_address(self, side: str) -> None:
        """Give the portal's side of the line its address."""
        self.at(f"portal-{side}", "ip", "address", "add", f"{WAN[side]}/24", "dev", "wan")
        self.at(f"portal-{side}", "ip", "link", "set", "wan", "up")

    def _wire(self, side: str, tag: int) -> None:
        run("ip", "link", "add", f"eth{tag}", "netns", self.ns(f"host-{side}"), "type", "veth",
            "peer", "name", f"eth{tag}", "netns", self.ns(f"portal-{side}"))  # fmt: skip
        self.at(f"host-{side}", "ip", "address", "add", f"{self.address(side, tag)}/24", "dev", f"eth{tag}")
        for name in ("host", "portal"):
            self.at(f"{name}-{side}", "ip", "link", "set", f"eth{tag}", "up")

    def close(self) -> None:
        """Remove everything."""
        for process in reversed(self.running):
            end(process)
            if process.stdout is not None:
                process.stdout.close()
        self.stack.close()
        for name in run("ip", "netns", "list").split():
            if name.startswith(f"{self.word}-"):
                run("ip", "netns", "delete", name)

    # Portals.

    def keys(self) -> None:
        """Nonce keys of both portals, and a host key of the one that waits."""
        for name in ("a", "b", "host"):
            key = asyncssh.generate_private_key("ssh-ed25519")
            key.write_private_key(self.folder / name)
            (self.folder / name).chmod(0o600)
            key.write_public_key(self.folder / f"{name}.pub")

    def config(self, side: str, **changes: Any) -> Path:
        """Write a portal's file; `a` connects, `b` waits. `planes=None` leaves a key out."""
        active = side == "a"
        values: dict[str, Any] = {
            "active": active,
            "peer": [WAN["b" if active else "a"]],
            "ssh_privkey": str(self.folder / side),
            "ssh_pubkey": str(self.folder / ("b.pub" if active else "a.pub")),
            "host_key": str(self.folder / ("host.pub" if active else "host")),
            "port": PORT,
            "state": str(self.folder / f"state-{side}"),
        }
        tables = {name: changes.pop(name) for name in list(changes) if isinstance(changes[name], dict)}
        lines = [f"{key} = {json.dumps(value)}" for key, value in {**values, **changes}.items()]
        for name, table in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        for tag in self.tags:
            lines += ["[[crossing]]", f"tag = {tag}", f'interface = "eth{tag}"', f'bridge = "br{tag}"']
        path = self.folder / f"{side}.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self, side: str, path: Path, *program: str) -> subprocess.Popen[bytes]:
        """Run a portal; `program` is how, if not from the sources."""
        program = program or (sys.executable, "-m", "fedkit.portal")
        return self.spawn(f"portal-{side}", *program, str(path), log=f"portal-{side}.log")

    def spawn(self, name: str, *command: str, log: str = "other.log") -> subprocess.Popen[bytes]:
        """Run a program there until the world ends."""
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.ns(name), *command], stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        self.running.append(process)
        return process

    def status(self, side: str) -> dict[str, Any]:
        """What a portal tells of itself; empty while it does not."""
        try:
            return dict(json.loads((self.folder / f"state-{side}" / "status.json").read_text()))
        except FileNotFoundError:
            return {}

    def joined(self, plane: str) -> None:
        """Wait until both send by this plane."""
        eventually(lambda: all(self.status(side).get("plane") == plane for side in SIDES), plane)

    def pings(self, side: str = "a", tag: int | None = None) -> bool:
        """Whether the other side's host answers."""
        other = "b" if side == "a" else "a"
        return "1 received" in self.at(
            f"host-{side}", "ping", "-c", "1", "-W", "1", self.address(other, tag), check=False
        )


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """Stop one of our programs; return its status."""
    if process.poll() is None:
        process.send_signal(number)
    if process.stdin is not None:
        process.stdin.close()
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a network namespace: sockets opened here stay there."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _setns(there)
        yield
    finally:
        _setns(own)
        os.close(own)
        os.close(there)


def _setns(fd: int) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")


def raw_socket(namespace: str, interface: str) -> socket.socket:
    """Sends and hears frames of an interface there."""
    with inside(namespace):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    sock.bind((interface, 0))
    sock.settimeout(0.2)
    return sock


def next_frame(sock: socket.socket) -> bytes:
    """A frame as it was on the wire: with the tag that the kernel puts aside. Raises `TimeoutError`."""
    data, said, _, _ = sock.recvmsg(65536, 256)
    for level, kind, value in said:
        if level == SOL_PACKET and kind == PACKET_AUXDATA:
            status = int.from_bytes(value[0:4], sys.byteorder)
            if status & VLAN_VALID:
                tci = int.from_bytes(value[16:18], sys.byteorder)
                tpid = int.from_bytes(value[18:20], sys.byteorder) or 0x8100
                data = data[:12] + tpid.to_bytes(2) + tci.to_bytes(2) + data[12:]
    return data


def hears(sock: socket.socket, frame: bytes, seconds: float) -> bool:
    """Whether this frame comes, octet by octet, within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if next_frame(sock) == frame:
                return True
        except TimeoutError:
            continue
    return False


def lacks() -> str | None:
    """Why no such world can be here, or None."""
    if os.geteuid():
        return "needs root"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return None
