"""Security groups made from security rules: one for each ordered network and each ordered public address.

Neutron's groups are lists of what is let through, joined at the port, so "exactly these rules" means: a group of our own whose
rules are made equal to the wish, by removing what is too much and adding what is missing. Nothing else is ever in that group.

A wish that says nothing of outgoing traffic lets all of it out, as Neutron does by default; one that names some of it lets out
that alone. With `inside`, the ports that share the group may say anything to one another. IPv4 and IPv6 are rules of their own in
Neutron; a wish without a prefix means both.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable
from ipaddress import ip_network
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from federation_member.middleware.contract import StillUsed
from federation_member.middleware.openstack.connection import Cloud, Empty
from federation_member.middleware.openstack.errors import InConflict
from federation_member.middleware.openstack.kinds import Context, Described, Thing
from fedkit.protocol.lending import SecurityRule

DIRECTIONS = {"in": "ingress", "out": "egress"}
EVERYTHING = SecurityRule(direction="out", protocol="any")


class Wanted(NamedTuple):
    """A rule in Neutron's terms; what Neutron leaves open is None."""

    direction: str
    ethertype: str
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None

    def body(self, group: str) -> dict[str, Any]:
        """As it is ordered."""
        return {"security_group_id": group} | {
            name: value for name, value in self._asdict().items() if value is not None
        }


class Rule(Thing):
    """As Neutron tells it."""

    direction: str
    ethertype: str
    protocol: str | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None

    @property
    def wanted(self) -> Wanted:
        """The wish that it fulfils."""
        return Wanted(*(getattr(self, name) for name in Wanted._fields))


class Group(Described):
    """As Neutron tells it."""

    security_group_rules: list[Rule] = Field(default_factory=list)


class OneGroup(BaseModel):
    """An answer with one."""

    security_group: Group


def wanted(rules: Iterable[SecurityRule], group: str | None = None) -> set[Wanted]:
    """What must stand in Neutron for these rules; members of `group` may say anything to one another."""
    rules = list(rules)
    if not any(rule.direction == "out" for rule in rules):
        rules.append(EVERYTHING)
    found = {translated for rule in rules for translated in _translate(rule)}
    if group is not None:
        found |= {
            Wanted(way, ether, remote_group_id=group) for way in DIRECTIONS.values() for ether in ("IPv4", "IPv6")
        }
    return found


def _translate(rule: SecurityRule) -> Iterable[Wanted]:
    network = None if rule.cidr is None else ip_network(rule.cidr)
    # Neutron keeps a prefix of length 0 as it came, but takes it for the same as none when it looks for doubles.
    prefix = None if network is None or network.prefixlen == 0 else str(network)
    for version in (4, 6) if network is None else (network.version,):
        protocol: str | None = rule.protocol
        if rule.protocol == "any":
            protocol = None
        elif rule.protocol == "icmp" and version == 6:
            protocol = "ipv6-icmp"
        first, last = rule.ports or (None, None)
        yield Wanted(DIRECTIONS[rule.direction], f"IPv{version}", protocol, first, last, prefix)


class Groups:
    """The groups of one kind of order."""

    def __init__(self, context: Context, kind: str) -> None:
        self._marks = context.marks
        self._end = f" {kind}"  # of the mark, so that no other kind takes the group for its own
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def ensure(self, cloud: Cloud, key: str, name: str, rules: Iterable[SecurityRule], *, inside: bool) -> str:
        """The id of the key's group, with exactly these rules; made if it is not there."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            group = await self._find(cloud, key)
            if group is None:
                body = {"name": name, "description": self._mark(key)}
                made = await cloud.post("network", "/security-groups", {"security_group": body}, OneGroup)
                group = made.security_group
            await self._reconcile(cloud, group, wanted(rules, group.id if inside else None))
            return group.id

    async def change(self, cloud: Cloud, key: str, rules: Iterable[SecurityRule]) -> bool:
        """Let exactly this through from now on, and within the group what was let through before; whether it is there."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            group = await self._find(cloud, key)
            if group is None:
                return False
            inside = any(rule.remote_group_id == group.id for rule in group.security_group_rules)
            await self._reconcile(cloud, group, wanted(rules, group.id if inside else None))
            return True

    async def id_of(self, cloud: Cloud, key: str) -> str | None:
        """The id of the key's group, if there is one."""
        group = await self._find(cloud, key)
        return None if group is None else group.id

    async def remove(self, cloud: Cloud, key: str) -> None:
        """Remove the key's groups; raises `StillUsed` while a port has one."""
        for group in await self._all(cloud, key):
            try:
                await cloud.delete("network", f"/security-groups/{group.id}")
            except InConflict as error:
                raise StillUsed(error.message) from error

    async def keys(self, cloud: Cloud) -> set[str]:
        """Whose groups the account has."""
        mine = await cloud.project_id()
        groups = await cloud.all("network", "/security-groups", "security_groups", Described, project_id=mine)
        texts = [group.description or "" for group in groups]
        keys = {
            self._marks.key_of_description(text.removesuffix(self._end)) for text in texts if text.endswith(self._end)
        }
        return {key for key in keys if key is not None}

    def _mark(self, key: str) -> str:
        return self._marks.description(key) + self._end

    async def _find(self, cloud: Cloud, key: str) -> Group | None:
        """The one that counts; several only after an answer was lost."""
        return next(iter(await self._all(cloud, key)), None)

    async def _all(self, cloud: Cloud, key: str) -> list[Group]:
        mark = self._mark(key)
        found = await cloud.all("network", "/security-groups", "security_groups", Group, description=mark)
        return sorted((group for group in found if group.description == mark), key=lambda group: group.id)

    async def _reconcile(self, cloud: Cloud, group: Group, wish: set[Wanted]) -> None:
        """Remove first: a moment too closed is better than one too open."""
        there = {rule.wanted: rule.id for rule in group.security_group_rules}
        for rule in group.security_group_rules:
            if rule.wanted not in wish:
                await cloud.delete("network", f"/security-group-rules/{rule.id}")
        missing = [one.body(group.id) for one in sorted(wish - there.keys(), key=str)]
        if missing:
            await self._add(cloud, missing)

    async def _add(self, cloud: Cloud, missing: list[dict[str, Any]]) -> None:
        try:
            await cloud.post("network", "/security-group-rules", {"security_group_rules": missing}, Empty)
        except InConflict:  # one of them is there by now: one after another, then
            for body in missing:
                try:
                    await cloud.post("network", "/security-group-rules", {"security_group_rule": body}, Empty)
                except InConflict:
                    continue
