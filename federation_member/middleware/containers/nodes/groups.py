"""Control groups of nodes: a group for the segment, in it one for each node, in every hierarchy that limits something."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

PERIOD = 100_000  # microseconds: over which the share of processor time is counted
CHARACTER = "c 1:3 rwm,c 1:5 rwm,c 1:7 rwm,c 1:8 rwm,c 1:9 rwm,c 5:0 rwm,c 5:2 rwm,c 136:* rwm,c 10:200 rw,c 10:229 rw"
UNIFIED = ("cpu", "memory", "pids")


def make(roots: Iterable[str], name: str, node: dict[str, Any]) -> list[str]:
    """Make a node's groups, as `name` below each hierarchy that limits something; tell which folders they are."""
    made = []
    for root in roots:
        is_unified = os.path.exists(f"{root}/cgroup.controllers")
        if is_unified:
            _delegate(root, name)
        folder = f"{root}/{name}"
        os.makedirs(folder, exist_ok=True)
        settings = _unified(node) if is_unified else _legacy(node)
        used = [one for one in settings if os.path.exists(f"{folder}/{one[0]}")]
        for file, value in used:
            _write(f"{folder}/{file}", value)
        if used or os.path.exists(f"{folder}/freezer.state"):
            made.append(folder)
        else:
            os.rmdir(folder)
    return made


def join(folders: Iterable[str]) -> None:
    """Put this process, and whatever it starts, into these groups."""
    for folder in folders:
        _write(f"{folder}/cgroup.procs", "0")


def _legacy(node: dict[str, Any]) -> list[tuple[str, str]]:
    devices = [("devices.allow", device) for device in CHARACTER.split(",")]
    return [
        ("memory.limit_in_bytes", str(node["memory_bytes"])),
        ("cpu.cfs_period_us", str(PERIOD)),
        ("cpu.cfs_quota_us", str(node["vcpu"] * PERIOD)),
        ("pids.max", str(node["processes"])),
        ("devices.deny", "a"),
        *devices,
    ]


def _unified(node: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("memory.max", str(node["memory_bytes"])),
        ("cpu.max", f"{node['vcpu'] * PERIOD} {PERIOD}"),
        ("pids.max", str(node["processes"])),
    ]


def _delegate(root: str, name: str) -> None:
    """Let the groups on the way to `name` hand their controllers down."""
    here = root
    for part in name.split("/"):
        listed = _read(f"{here}/cgroup.controllers").split()
        _write(f"{here}/cgroup.subtree_control", " ".join(f"+{one}" for one in UNIFIED if one in listed))
        here = f"{here}/{part}"
        os.makedirs(here, exist_ok=True)


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
