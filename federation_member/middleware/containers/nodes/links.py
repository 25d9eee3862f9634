"""The interfaces of nodes: pairs whose outer ends are ports of the segment's bridges, or of the site's intranet.

The bridges are in the host program's own network namespace, where no node can look, and go with it. Many pairs are made by one run of `ip`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from federation_member.middleware.containers.nodes import kernel
from federation_member.middleware.containers.nodes.shaping import Commands
from federation_member.middleware.containers.nodes.wires import Wires, is_late

SIOCADDRT, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP, RTF_UP, RTF_GATEWAY = 1, 1, 2
ROUTE = struct.Struct("@L16s16s16sHhLPhPLLH")  # struct rtentry of <linux/route.h>
BATCH = "-batch"


def make_bridges(bridges: dict[str, str]) -> None:
    """Make bridges in the present network namespace; the values are more words for each."""
    run(["ip", BATCH, "-"], [f"link add {name} up type bridge {words}" for name, words in bridges.items()])


def plug_in(nodes: Iterable[tuple[dict[str, Any], int]], outside: int, wires: Wires | None) -> None:
    """Make the pairs of all these nodes, each with the process that holds its namespaces; `outside` is the site's network.

    With `wires` the kernel has no netem, and those make what is to be late.
    """
    inner: list[str] = []
    outer: list[str] = []
    shaped = Commands(netem=wires is None)
    for node, process in nodes:
        for index, plug in enumerate(node["plugs"]):
            if wires is not None and is_late(plug):
                inner += [
                    f"link set {wires.make(plug)} address {plug['hardware']} netns {process} name eth{index}",
                    f"link set {plug['outside']} addrgenmode none up master {plug['bridge']}",
                ]
                continue
            ends = f"type veth peer name eth{index} address {plug['hardware']} netns {process}"
            line = f"link add {plug['outside']} up master {plug['bridge']} {ends}"
            (outer if plug["isolated"] else inner).append(line)
            if plug["isolated"]:
                outer.append(f"link set {plug['outside']} addrgenmode none type bridge_slave isolated on")
        shaped.add(node["plugs"])
    run(["ip", BATCH, "-"], outer, outside)  # first: portals tell their interfaces by their order
    run(["ip", BATCH, "-"], inner + shaped.ip)
    run(["tc", BATCH, "-"], shaped.tc)
    run(["nft", "-f", "-"], shaped.nft)


def run(command: list[str], lines: list[str], namespace: int | None = None) -> None:
    """Let a program do a batch of commands in a network namespace; raises `OSError` with its words."""
    if not lines:
        return
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        if namespace is not None:
            kernel.setns(namespace, kernel.CLONE_NEWNET)
        text = "\n".join([*lines, ""])
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    finally:
        kernel.setns(here, kernel.CLONE_NEWNET)
        os.close(here)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()[-300:]}")


def unplug(node: dict[str, Any], outside: int) -> None:
    """Remove the pairs of a node that ended, should the kernel not have done so yet, and what stands between."""
    for plug in node["plugs"]:
        between = [f"{kind}{plug['outside']}" for kind in "it"] if plug["shape"] else []
        for name in (plug["outside"], *between):
            with suppress(OSError):  # it went with its other end
                run(["ip", BATCH, "-"], [f"link delete {name}"], outside if plug["isolated"] else None)


def configure(node: dict[str, Any]) -> None:
    """In the node's network namespace: addresses, routes, and whether it forwards."""
    for name, value in node["sysctl"].items():
        with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
            file.write(value)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tool:
        _raise(tool, "lo")
        for index, plug in enumerate(node["plugs"]):
            name = f"eth{index}"
            if plug["address"]:
                _ask(tool, SIOCSIFADDR, name, plug["address"])
                _ask(tool, SIOCSIFNETMASK, name, plug["netmask"])
            _raise(tool, name)
        for destination, netmask, via in node["routes"]:
            _route(tool, destination, netmask, via)


def _raise(tool: socket.socket, name: str) -> None:
    request = struct.pack("16sH14x", name.encode(), 0)
    flags = struct.unpack("16xH14x", fcntl.ioctl(tool, SIOCGIFFLAGS, request))[0]
    fcntl.ioctl(tool, SIOCSIFFLAGS, struct.pack("16sH14x", name.encode(), flags | IFF_UP))


def _ask(tool: socket.socket, request: int, name: str, address: str) -> None:
    fcntl.ioctl(tool, request, struct.pack("16s16s", name.encode(), _address(address)))


def _route(tool: socket.socket, destination: str, netmask: str, via: str) -> None:
    flags = RTF_UP | RTF_GATEWAY
    where = (_address(destination), _address(via), _address(netmask))
    entry = ROUTE.pack(0, *where, flags, 0, 0, 0, 0, 0, 0, 0, 0)
    try:
        fcntl.ioctl(tool, SIOCADDRT, entry)
    except FileExistsError:
        return
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), f"the route to {destination} via {via}") from error


def _address(text: str) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))
