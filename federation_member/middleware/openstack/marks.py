"""How our things are known in the cloud: by marks that are written in the very call that makes them.

    servers                  tags `fedmesh-site=SITE` and `fedmesh-key=KEY` (Nova finds by tag), and metadata for people
    networks, subnets, …     description `fedmesh SITE KEY` (every Neutron finds by exact description)
    volumes, images          metadata or properties `fedmesh_site` and `fedmesh_key`

Names are only shown. A server's second mark is its port: a server that lost its tags is still found by the port that it holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from federation_member.middleware.contract import UnusableSpec

SITE, KEY = "fedmesh_site", "fedmesh_key"  # of metadata
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Marks:
    """The marks of one site. Two members in one cloud have different ones, and never touch each other's things."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.site_tag = f"fedmesh-site={site}"
        self.base = f"fedmesh {site} machines"  # description of what belongs to an account, not to a key

    def key_tag(self, key: str) -> str:
        """A server's tag."""
        return f"fedmesh-key={check(key)}"

    def description(self, key: str) -> str:
        """Of a network, a port, …"""
        return f"fedmesh {self.site} {check(key)}"

    def metadata(self, key: str) -> dict[str, str]:
        """Of a server, a volume, an image."""
        return {SITE: self.site, KEY: check(key)}

    def key_of_tags(self, tags: Iterable[str]) -> str | None:
        """The key of a server with these tags, if it is ours."""
        if self.site_tag not in tags:
            return None
        keys = [tag.removeprefix("fedmesh-key=") for tag in tags if tag.startswith("fedmesh-key=")]
        return keys[0] if keys and _UUID.fullmatch(keys[0]) else None

    def key_of_description(self, text: str | None) -> str | None:
        """The key of what has this description, if it is ours."""
        start = f"fedmesh {self.site} "
        key = (text or "").removeprefix(start)
        return key if text is not None and text.startswith(start) and _UUID.fullmatch(key) else None

    def key_of_metadata(self, metadata: dict[str, str]) -> str | None:
        """The key of what has these metadata, if it is ours."""
        key = metadata.get(KEY, "")
        return key if metadata.get(SITE) == self.site and _UUID.fullmatch(key) else None


def check(key: str) -> str:
    """Keys become parts of queries, so they are what they should be: UUIDs."""
    if not _UUID.fullmatch(key):
        raise UnusableSpec(f"{key!r} is not a UUID in lower case.")
    return key
