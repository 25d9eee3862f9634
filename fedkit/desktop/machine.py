"""What this machine has already: names, ways, and where others are found from here."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from fedkit.desktop.traces import HOSTS
from fedkit.node.kit.network import routes


def names(path: Path = Path(HOSTS)) -> frozenset[str]:
    """The names that its hosts file has, and its own, in small letters."""
    lines = (line.partition("#")[0].split()[1:] for line in _text(path).splitlines())
    found = {name.lower() for line in lines for name in line}
    return frozenset(found | {"localhost", socket.gethostname().lower()})


def hosts_file(lines: Sequence[str], path: Path = Path(HOSTS)) -> str:
    """Its hosts file with more lines."""
    text = _text(path)
    return "".join([text, "" if not text or text.endswith("\n") else "\n", *(f"{line}\n" for line in lines)])


def networks() -> list[IPv4Network]:
    """Where its routes lead, the one to everywhere included."""
    return [IPv4Network(hop.destination) for hop in routes()]


def addresses(host: str) -> list[IPv4Address]:
    """The IPv4 addresses of a host, none if it is not known."""
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return [IPv4Address(place[0]) for *_, place in found]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ""
