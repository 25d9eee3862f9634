"""Accounts of a project: lines of passwd, group and shadow, homes, and the keys that may enter.

Numbers are those that the experiment gives, so that they are alike on all nodes; where an image has the number already, the next free one
is taken. An account or group of the image's own with the same name is used as it is; a person's gets the keys beside its own. New ones
have no password, so only keys enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from fedkit.node.kit.conf import Conf
from fedkit.node.kit.doing import Change
from fedkit.node.kit.files import Block, Folder, Records, Text
from fedkit.node.kit.smb import Owner, folders
from fedkit.node.kit.system import System

HOME = "/home"
PEOPLE = 1000  # the first number that is no system account's
TITLE = "keys of the experiment"
FIRST = 20_000  # where free numbers are looked for, for a user whom nobody gave one
Read = Callable[[str], str]  # a file as it was before the kit


@dataclass(frozen=True)
class People:
    """Everybody, as they will be on this machine; homes of those that are the image's are not ours."""

    owners: Mapping[str, Owner]
    homes: Mapping[str, str]
    groups: Mapping[str, int]
    shells: Mapping[str, str]


def people(conf: Conf, read: Read) -> People:
    """Who there is, of the file's accounts and of the owners of shares, whom nobody else may have named."""
    known_groups = {fields[0]: int(fields[2]) for fields in _records(read("/etc/group"), 3)}
    known = {fields[0]: fields for fields in _records(read("/etc/passwd"), 7)}
    groups = _numbered({name: gid for name, gid in conf.groups.items() if name not in known_groups}, known_groups)
    wanted = {account.name: (account.uid, account.group) for account in conf.accounts.values()}
    for share in (*conf.exports, *conf.shares):
        wanted.setdefault(share.user, (FIRST, next(iter(conf.groups), "nogroup")))
    uids = {name: int(fields[2]) for name, fields in known.items()}
    numbers = _numbered({name: uid for name, (uid, _) in wanted.items() if name not in known}, uids)
    gids = {**groups, **known_groups}
    owners, homes, shells = {}, {}, {}
    for name, (_, group) in wanted.items():
        if name in known:
            owners[name] = Owner(name, int(known[name][2]), int(known[name][3]))
            homes[name] = known[name][5]
        else:
            owners[name] = Owner(name, numbers[name], gids.get(group, 65534))
            homes[name] = f"{HOME}/{name}"
            shells[name] = "/bin/sh"
    return People(owners, homes, groups, shells)


def changes(conf: Conf, system: System, found: People) -> Iterator[Change]:
    """What that changes."""
    if found.groups:
        yield Records("/etc/group", [f"{name}:x:{gid}:" for name, gid in found.groups.items()])
    new = [found.owners[name] for name in found.shells]
    if new:
        passwd = [f"{o.name}:x:{o.uid}:{o.gid}::{found.homes[o.name]}:{found.shells[o.name]}" for o in new]
        yield Records("/etc/passwd", passwd)
        yield Records("/etc/shadow", [f"{owner.name}:*:19000:0:99999:7:::" for owner in new])
    for owner in new:
        yield from folders(system, found.homes[owner.name], 0o755, owner)
    for name, keys in conf.keys.items():
        owner, file = found.owners[name], f"{found.homes[name]}/.ssh/authorized_keys"
        if name in found.shells:
            yield Folder(f"{found.homes[name]}/.ssh", 0o700, owner.uid, owner.gid)
            yield Text(file, "".join(f"{key}\n" for key in keys), 0o600, owner.uid, owner.gid)
        elif owner.uid >= PEOPLE and system.path(file).exists():
            yield Block(file, TITLE, keys)


def _records(text: str, fields: int) -> Iterator[list[str]]:
    """The well-formed lines of a file."""
    for line in text.splitlines():
        found = line.split(":")
        if len(found) >= fields and found[2].isdigit():
            yield found


def _numbered(wanted: Mapping[str, int], known: Mapping[str, int]) -> dict[str, int]:
    """A free number for each, from the wanted one upwards."""
    taken = set(known.values())
    found = {}
    for name, number in wanted.items():
        while number in taken:
            number += 1  # noqa: PLW2901
        taken.add(number)
        found[name] = number
    return found
