"""What a container is given besides what every machine is: its first program, and what its root file system leaves open.

All of it is written into the machine's own new layer by the launcher; nothing that a user sent is executed or even
followed as a path outside of the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from ipaddress import IPv4Address

from federation_member.middleware.inside.files import PLAIN, PROGRAM, Belongings, Files, belongings, text_of, user_part
from federation_member.middleware.user_data import UserData

MACHINE = files("federation_member.middleware.containers") / "machine"


@dataclass(frozen=True)
class Machine(Belongings):
    """All that is written into one machine."""

    addresses: list[IPv4Address]
    dns: list[IPv4Address]
    user_data: UserData
    one_id: bool


def seed(machine: Machine) -> Files:
    """Return the files to write."""
    users, setup = user_part(machine.keys, machine.user_data)
    hosts = ["127.0.0.1 localhost", *(f"{address} {machine.hostname}" for address in machine.addresses[:1])]
    return {
        **belongings(machine),
        **users,
        "etc/fed/init": ((MACHINE / "init.sh").read_bytes(), PROGRAM),
        "etc/fed/setup": (text_of([f"ONE_ID={'1' if machine.one_id else ''}", *setup]), PLAIN),
        "etc/fed/sshd_config": ((MACHINE / "sshd_config").read_bytes(), PLAIN),
        "etc/hosts": (text_of(hosts), PLAIN),
        "etc/resolv.conf": (text_of(f"nameserver {server}" for server in machine.dns), PLAIN),
    }
