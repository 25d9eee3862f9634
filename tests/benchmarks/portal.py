"""Each data plane beside plain veth, kernel VXLAN, `ssh -w` and OpenVPN, in one run: `python -m tests.benchmarks.portal`.

Every variant has a pair of sites of its own in network namespaces (`tests/component/portal/world.py`), all are up at the same time, and
they take turns at each figure, so that a noisy machine is noisy to all; the tables show medians. CPU is that of the programs
that carry the frames (the kernel carries veth's and VXLAN's for others, so they have none), for each GB of TCP.

    short   a veth pair between the portals: what the program can carry
    long    an emulated line of 20 ms there and back, 300 Mbit/s, that loses one frame in a thousand
    gaps    how long pings stay away when datagrams are blocked, and when the ssh connection is reset

Needs root, iperf3 and openvpn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

from tests.benchmarks.tunnel import cpu_seconds
from tests.component.portal.world import PORT, SIDES, WAN, World, eventually

SECONDS = 2
LONG = {"delay": 0.01, "mbps": 300.0, "queue": 0.05, "loss": 0.001}
IPERF = 5201
RULES = "add table inet block; add chain inet block input { type filter hook input priority 0; }; "


@dataclass
class Variant:
    """A pair of sites joined in some way, and what was measured."""

    name: str
    world: World
    carriers: list[int] = field(default_factory=list)  # process ids
    figures: dict[str, list[float]] = field(default_factory=dict)

    def note(self, figure: str, value: float) -> None:
        """Keep a figure of this turn."""
        self.figures.setdefault(figure, []).append(value)

    def told(self, figure: str, form: str = ".0f") -> str:
        """Its median."""
        values = self.figures.get(figure)
        return format(median(values), form) if values else "-"


# Ways to join two sites.


def bridge(world: World, side: str, port: str) -> None:
    """Join an interface with the site's network."""
    world.at(f"portal-{side}", "sh", "-ec", f"""
        ip link add br3 type bridge mcast_snooping 0
        for port in {port} eth3; do ip link set $port master br3 up; done; ip link set br3 up""")  # fmt: skip


def veth(world: World) -> list[int]:
    """The line itself in both bridges: the limit."""
    for side in SIDES:
        bridge(world, side, "wan")
    return []


def vxlan(world: World) -> list[int]:
    """The kernel's own tunnel, in the clear; the hosts' MTU is as it allows."""
    for side, other in (SIDES, SIDES[::-1]):
        world.at(f"portal-{side}", "ip", "link", "add", "vx", "type", "vxlan", "id", "3", "local", WAN[side],
                 "remote", WAN[other], "dstport", "4789", "dev", "wan")  # fmt: skip
        bridge(world, side, "vx")
        world.at(f"host-{side}", "ip", "link", "set", "eth3", "mtu", "1450")
    return []


def ssh_w(world: World) -> list[int]:
    """OpenSSH's Ethernet tunnel, with a session, which turns Nagle's algorithm off."""
    for side in SIDES:
        world.at(f"portal-{side}", "ip", "tuntap", "add", "tap3", "mode", "tap")
        bridge(world, side, "tap3")
    config = world.folder / "sshd_config"
    config.write_text(
        f"Port {PORT}\nHostKey {world.folder}/host\nAuthorizedKeysFile {world.folder}/a.pub\nPermitTunnel ethernet\n"
        "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    server = world.spawn("portal-b", "/usr/sbin/sshd", "-D", "-e", "-f", str(config))
    eventually(lambda: f":{PORT}" in world.at("portal-b", "ss", "-Hltn"), "sshd")
    client = world.spawn(
        "portal-a", "ssh", "-F", "none", "-T", "-p", str(PORT), "-i", str(world.folder / "a"), "-o", "BatchMode=yes",
        "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-c", "aes128-gcm@openssh.com",
        "-o", "Tunnel=ethernet", "-w", "3:3", f"root@{WAN['b']}", "cat",
    )  # fmt: skip
    return [server.pid, client.pid]


def openvpn(world: World) -> list[int]:
    """OpenVPN over UDP with AES-128-GCM."""
    prints = {side: certificate(world, side) for side in SIDES}
    running = []
    for side, other in (SIDES[::-1], SIDES):
        role = ["--tls-server", "--dh", "none"] if side == "b" else ["--tls-client"]
        running.append(world.spawn(
            f"portal-{side}", "openvpn", "--dev", "tap3", "--dev-type", "tap", "--proto", "udp4", "--local", WAN[side],
            "--remote", WAN[other], "--port", "1194", *role, "--cert", f"{world.folder}/{side}.crt", "--key",
            f"{world.folder}/{side}.key", "--peer-fingerprint", prints[other], "--data-ciphers", "AES-128-GCM",
            "--sndbuf", "4194304", "--rcvbuf", "4194304", "--txqueuelen", "1000", "--mssfix", "0", "--verb", "1",
        ))  # fmt: skip
        there = f"portal-{side}"
        eventually(lambda there=there: "tap3" in world.at(there, "ip", "-br", "link"), "a tap")  # type: ignore[misc]
        bridge(world, side, "tap3")
    return [process.pid for process in running]


def certificate(world: World, side: str) -> str:
    """Make a key and its certificate; return the fingerprint."""
    files = ["-keyout", f"{world.folder}/{side}.key", "-out", f"{world.folder}/{side}.crt"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={side}", *files], check=True, capture_output=True)  # fmt: skip
    said = subprocess.run(["openssl", "x509", "-in", f"{world.folder}/{side}.crt", "-noout", "-fingerprint", "-sha256"],
                          check=True, capture_output=True, text=True)  # fmt: skip
    return said.stdout.strip().partition("=")[2]


def two_addresses(world: World) -> list[int]:
    """Ours; the partner has two addresses."""
    world.at("portal-b", "ip", "address", "add", "192.0.2.12/24", "dev", "wan")
    pids = [world.start("b", world.config("b")).pid]
    pids.append(world.start("a", world.config("a", peer=[WAN["b"], "192.0.2.12"])).pid)
    world.joined("superframes")
    return pids


def portals(*planes: str) -> Callable[[World], list[int]]:
    """Ours, with these planes allowed."""

    def start(world: World) -> list[int]:
        pids = [world.start(side, world.config(side, planes=list(planes))).pid for side in ("b", "a")]
        if len(planes) == 1:
            world.joined(planes[0])
        return pids

    return start


def classic_to_sshd(world: World) -> list[int]:
    """Ours at the end that connects, sshd at the other."""
    for name in ("a", "b"):
        (world.folder / name).chmod(0o600)
    world.at("portal-b", "ip", "tuntap", "add", "tap3", "mode", "tap")
    bridge(world, "b", "tap3")
    config = world.folder / "sshd_config"
    config.write_text(
        f"Port {PORT}\nHostKey {world.folder}/host\nAuthorizedKeysFile {world.folder}/a.pub\nPermitTunnel ethernet\n"
        "PermitRootLogin yes\nStrictModes no\nUsePAM no\nPidFile none\n"
    )
    server = world.spawn("portal-b", "/usr/sbin/sshd", "-D", "-e", "-f", str(config))
    return [server.pid, world.start("a", world.config("a")).pid]


WAYS: dict[str, Callable[[World], list[int]]] = {
    "veth (limit)": veth,
    "VXLAN, no crypto": vxlan,
    "ssh -w": ssh_w,
    "OpenVPN": openvpn,
    "super-frames": portals("superframes"),
    "datagrams": portals("datagrams"),
    "classic, both ours": portals("classic"),
    "classic to sshd": classic_to_sshd,
}
LONG_WAYS = {name: WAYS[name] for name in ("veth (limit)", "ssh -w", "OpenVPN", "super-frames", "datagrams")}
LONG_WAYS["as picked"] = portals("superframes", "datagrams", "classic")


def open_variant(name: str, way: Callable[[World], list[int]], long: bool) -> Variant:
    """Make two sites and join them so."""
    world = World(Path(tempfile.mkdtemp(prefix="portal-bench-")))
    try:
        world.build(wan=not long)
        if long:
            world.long_line(**LONG)
        world.keys()
        variant = Variant(name, world, way(world))
        eventually(world.pings, f"a ping by {name}")
        server = world.spawn("host-b", "iperf3", "-s", "-p", str(IPERF))
        eventually(lambda: f":{IPERF}" in world.at("host-b", "ss", "-Hltn"), "iperf3")
        assert server.poll() is None
    except BaseException:
        world.close()
        raise
    return variant


# Figures.


def iperf(variant: Variant, *options: str) -> dict[str, float]:
    """Run iperf3; return its sums."""
    said = variant.world.at("host-a", "iperf3", "-J", "-p", str(IPERF), "-c", variant.world.address("b"), "-t", str(SECONDS),
                            *options, check=False)  # fmt: skip
    end = json.loads(said).get("end", {})
    return dict(end.get("sum_received") or end.get("sum") or {})


def tcp(variant: Variant) -> None:
    """Throughput, and CPU of those who carry, for each GB."""
    before = sum(cpu_seconds(pid) for pid in variant.carriers)
    got = iperf(variant)
    if got:
        variant.note("tcp", got["bits_per_second"] / 1e6)
        spent = sum(cpu_seconds(pid) for pid in variant.carriers) - before
        if variant.carriers:
            variant.note("cpu", spent / (got["bytes"] / 1e9))


def udp(variant: Variant) -> None:
    """Most of what arrives of what is sent at some rates, 1400 octets at a time."""
    best = 0.0
    for rate in ("200M", "600M"):
        got = iperf(variant, "-u", "-b", rate, "-l", "1400")
        best = max(best, got.get("bits_per_second", 0.0) * (1 - got.get("lost_percent", 0.0) / 100) / 1e6)
    variant.note("udp", best)


def ping(variant: Variant, figure: str, count: int = 100) -> None:
    """Times there and back in milliseconds: median and 99th percentile."""
    said = variant.world.at(
        "host-a", "ping", "-i", "0.01", "-c", str(count), "-W", "2", variant.world.address("b"), check=False
    )
    times = [float(line.partition("time=")[2].split()[0]) for line in said.splitlines() if "time=" in line]
    if len(times) > 2:
        variant.note(f"{figure} p50", median(times))
        variant.note(f"{figure} p99", quantiles(times, n=100)[98])


def loaded(variant: Variant) -> None:
    """Pings beside a TCP transfer."""
    world = variant.world
    load = world.spawn(
        "host-a", "iperf3", "-p", str(IPERF), "-c", world.address("b"), "-t", str(SECONDS + 1), log="load.log"
    )
    time.sleep(0.7)
    ping(variant, "loaded", 150)
    load.wait(30)


def gap(world: World, cut: Callable[[], object], after: float) -> float:
    """Seconds without an answer around a cut, with a ping every 10 ms."""
    pinging = subprocess.Popen(
        ["ip", "netns", "exec", world.ns("host-a"), "ping", "-D", "-i", "0.01", "-w", str(int(after) + 2), world.address("b")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    time.sleep(1)
    cut()
    said, _ = pinging.communicate(timeout=60)
    times = [
        float(line[1:].partition("]")[0]) for line in said.splitlines() if line.startswith("[") and "time=" in line
    ]
    return max(later - earlier for earlier, later in pairwise(times))


def gaps() -> None:
    """How long nothing comes when a path is cut."""
    variant = open_variant("as picked", LONG_WAYS["as picked"], long=True)
    world = variant.world
    try:
        world.joined("datagrams")
        rules = RULES + "add rule inet block input meta l4proto udp drop"
        blocked = gap(world, lambda: world.at("portal-b", "nft", rules), 8)
        print(f"datagrams blocked: back by ssh after {blocked:.2f} s")
    finally:
        world.close()
    variant = open_variant("two addresses", two_addresses, long=False)
    world = variant.world
    try:
        reset = [gap(world, lambda: world.at("portal-a", "ss", "-K", "dport", "=", str(PORT)), 2) for _ in range(3)]
        print(f"ssh connection reset: back after {', '.join(f'{one * 1000:.0f}' for one in reset)} ms")
        sport = world.at("portal-a", "ss", "-Htn", "state", "established", "dport", "=", str(PORT))
        used = sport.split()[3].rpartition(":")[0]
        rules = RULES + f"add rule inet block input ip daddr {used} drop"
        cut = gap(world, lambda: world.at("portal-b", "nft", rules), 9)
        print(f"one of two addresses cut off in silence: back by the other after {cut:.2f} s")
    finally:
        world.close()


# Tables.


def measure(ways: dict[str, Callable[[World], list[int]]], rounds: int, long: bool) -> None:
    """Let the variants take turns, and print a table."""
    variants: list[Variant] = []
    try:
        for name, way in ways.items():
            variants.append(open_variant(name, way, long))
        if long:
            variants[-1].world.joined("datagrams")
        for _ in range(rounds):
            for figure in (tcp, udp, lambda variant: ping(variant, "idle"), loaded):
                for variant in variants:
                    figure(variant)
        print_table(variants)
    finally:
        for variant in variants:
            variant.world.close()


def print_table(variants: list[Variant]) -> None:
    """In Markdown."""
    print(
        "| way | TCP Mbit/s | CPU s/GB | UDP Mbit/s | ping idle p50/p99 ms | under TCP p50/p99 ms |\n|---|---|---|---|---|---|"
    )
    for one in variants:
        pings = [f"{one.told(f'{kind} p50', '.2f')}/{one.told(f'{kind} p99', '.2f')}" for kind in ("idle", "loaded")]
        print(
            f"| {one.name} | {one.told('tcp')} | {one.told('cpu', '.2f')} | {one.told('udp')} | {pings[0]} | {pings[1]} |"
        )
    sys.stdout.flush()


def main() -> None:
    """Measure what is asked for, or everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", choices=["short", "long", "gaps", []], default=[])
    parser.add_argument("--rounds", type=int, default=3)
    said = parser.parse_args()
    what = said.what or ["short", "long", "gaps"]
    if "short" in what:
        measure(WAYS, said.rounds, long=False)
    if "long" in what:
        measure(LONG_WAYS, said.rounds, long=True)
    if "gaps" in what:
        gaps()


if __name__ == "__main__":
    main()
