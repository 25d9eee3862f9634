"""Bridges, taps and interfaces of a portal's crossings, as they must be, and as they were.

    crossing ── eth1 ─ br7 ─ tap7 ─ this process ═ …

`make` is idempotent and continues what a killed one began; `undo` takes back what the journal tells, whoever made it. A bridge that
was there before is used and stays. Frames pass as they are: no packet filter looks at them, multicast goes everywhere, and
of the group addresses that a bridge keeps to itself it forwards all that the kernel allows; STP, pause frames and LACP
(01:80:c2:00:00:00 to 02) end at every Linux bridge.

Needs `ip` and, for rates, `tc` (iproute2).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedkit.portal.config import CrossingConfig
from fedkit.portal.errors import NoBridge
from fedkit.portal.frames import MTU
from fedkit.portal.journal import Entry, Journal
from fedkit.portal.tap import Tap

FORWARDED_GROUPS = 0xFFF8  # bit n: 01:80:c2:00:00:0n; the kernel refuses the lowest three
QUEUE = 256  # frames that a tap holds until they are read, which is at once
FILTERS = [Path(f"/proc/sys/net/bridge/bridge-nf-call-{family}tables") for family in ("ip", "ip6", "arp")]
Link = dict[str, Any]


def make(crossings: Iterable[CrossingConfig], journal: Journal) -> dict[int, Tap]:
    """Make it so; return the tap of each tag. Raises `NoBridge`, `NoTap`."""
    for filters in FILTERS:
        with suppress(OSError):  # no such filter, or none that this network namespace may turn
            before = filters.read_text().strip()
            if before != "0":
                journal.note("proc", str(filters), before=before)
                filters.write_text("0")
    _rule(
        journal, "2", "lookup", "local"
    )  # the kernel asks its own addresses first, before any other rule: not any more
    if journal.has("rule", "2 lookup local") and "0:" in _rules():
        _ip("rule", "delete", "pref", "0")
    taps = {}
    for crossing in crossings:
        _rule(journal, "1", "iif", crossing.bridge, "type", "blackhole")
        taps[crossing.tag] = _make(crossing, journal)
    return taps


def _rule(journal: Journal, preference: str, *rule: str) -> None:
    """Add a rule: who is on a crossing speaks to its other end, and not to or through this machine."""
    name = " ".join([preference, *rule])
    is_ours = journal.has("rule", name)
    journal.note("rule", name)
    try:
        _ip("rule", "add", "pref", *name.split())
    except NoBridge as error:
        if not is_ours or "File exists" not in error.message:  # a killed one has added it
            raise


def _rules() -> list[str]:
    return subprocess.run(["ip", "rule"], capture_output=True, text=True, check=False).stdout.split()


def _make(crossing: CrossingConfig, journal: Journal) -> Tap:
    port = _link(crossing.interface)
    if port is None:
        raise NoBridge(f"crossing {crossing.tag}: there is no interface {crossing.interface}")
    if _link(crossing.bridge) is None:
        journal.note("bridge", crossing.bridge)
        _ip("link", "add", crossing.bridge, "type", "bridge")
    if journal.has(
        "bridge", crossing.bridge
    ):  # ARP is not answered: who is on a crossing has no business with this machine
        _ip("link", "set", crossing.bridge, "arp", "off", "addrgenmode", "none", "type", "bridge", "stp_state", "0",
            "mcast_snooping", "0", "group_fwd_mask", str(FORWARDED_GROUPS))  # fmt: skip
    if _link(crossing.tap) is None:
        journal.note("tap", crossing.tap)
    tap = Tap(crossing.tap)
    _ip("link", "set", crossing.tap, "addrgenmode", "none", "mtu", str(min(port["mtu"], MTU)), "txqueuelen", str(QUEUE))
    journal.note(
        "port", crossing.interface, master=port.get("master", ""), up="UP" in port["flags"], addresses=_addresses(port)
    )
    _ip("address", "flush", "dev", crossing.interface)
    for name in (crossing.interface, crossing.tap):
        _ip("link", "set", name, "master", crossing.bridge, "up")
    _ip("link", "set", crossing.bridge, "up")
    _limit(crossing)
    return tap


def _limit(crossing: CrossingConfig) -> None:
    if crossing.rate_kbps is None:
        return
    burst = max(10_000, crossing.rate_kbps * 1000 // 8 // 100)  # octets: what goes out in 10 ms
    _run("tc", "qdisc", "replace", "dev", crossing.tap, "root", "tbf", "rate", f"{crossing.rate_kbps}kbit",
         "burst", str(burst), "latency", "50ms")  # fmt: skip


def undo(journal: Journal) -> None:
    """Take everything back, the last first; what is gone already is gone."""
    for entry in reversed(list(journal.entries)):
        _undo(entry)
        journal.strike(entry)
    journal.forget()


def _undo(entry: Entry) -> None:
    kind, name = entry["kind"], entry["name"]
    if kind == "rule":
        if "local" in name and "0:" not in _rules():
            _ip("rule", "add", "pref", "0", "lookup", "local")
        with suppress(NoBridge):  # it was not added any more
            _ip("rule", "delete", "pref", *name.split())
    elif kind == "proc":
        with suppress(OSError):
            Path(name).write_text(entry["before"])
    elif _link(name) is None:
        return
    elif kind in ("bridge", "tap"):
        _ip("link", "delete", name)
    elif kind == "port":
        master = entry["master"] if entry["master"] and _link(entry["master"]) is not None else ""
        _ip("link", "set", name, *(["master", master] if master else ["nomaster"]), "up" if entry["up"] else "down")
        for address in entry["addresses"]:
            with suppress(NoBridge):  # it has come back by itself, as link-local ones do
                _ip("address", "add", address, "dev", name)


def _link(name: str) -> Link | None:
    """What `ip` knows of an interface; None if there is none."""
    done = subprocess.run(
        ["ip", "-j", "-d", "address", "show", "dev", name], capture_output=True, text=True, check=False
    )
    if done.returncode:
        if "does not exist" in done.stderr:
            return None
        raise NoBridge(f"ip address show dev {name}: {done.stderr.strip()}")
    return next((dict(link) for link in json.loads(done.stdout or "[]") if link), None)


def _addresses(link: Link) -> list[str]:
    return [f"{one['local']}/{one['prefixlen']}" for one in link.get("addr_info", []) if one.get("scope") != "link"]


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoBridge(f"{command[0]} cannot be run: {error.strerror}. Install iproute2.") from error
    if done.returncode:
        raise NoBridge(f"{' '.join(command)}: {done.stderr.strip()}")
