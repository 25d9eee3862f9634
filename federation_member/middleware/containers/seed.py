"""What a machine finds in itself when it starts: its keys, its user's keys and data, and the way to its tunnels.

All of it is written into the machine's own new layer by the launcher; nothing that a user sent is executed or even
followed as a path outside of the machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from ipaddress import IPv4Address

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from federation_member.middleware.contract import TunnelAccess
from federation_member.middleware.user_data import UserData

ACCOUNT = "fed"
SECRET, PLAIN, PROGRAM = 0o600, 0o644, 0o700
MACHINE = files("federation_member.middleware.containers") / "machine"
Files = dict[str, tuple[bytes, int]]  # path under / to content and mode


@dataclass(frozen=True)
class HostKey:
    """The key that the machine's ssh server shows."""

    private: bytes = field(repr=False)
    public: str

    @classmethod
    def generate(cls) -> HostKey:
        """Make a new Ed25519 key."""
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        return cls(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), public.decode())


@dataclass(frozen=True)
class Machine:
    """All that is written into one machine."""

    hostname: str
    addresses: list[IPv4Address]
    dns: list[IPv4Address]
    keys: list[str]
    host_key: HostKey
    user_data: UserData
    tunnel: TunnelAccess | None
    trusted_ca: str | None
    one_id: bool


def seed(machine: Machine) -> Files:
    """Return the files to write."""
    content: Files = {
        "etc/fed/init": ((MACHINE / "init.sh").read_bytes(), PROGRAM),
        "etc/fed/sshd_config": ((MACHINE / "sshd_config").read_bytes(), PLAIN),
        "etc/fed/host_key": (machine.host_key.private, SECRET),
        "etc/hostname": (f"{machine.hostname}\n".encode(), PLAIN),
        "etc/hosts": (_hosts(machine).encode(), PLAIN),
        "etc/resolv.conf": ("".join(f"nameserver {server}\n" for server in machine.dns).encode(), PLAIN),
        "etc/motd": (_motd(machine).encode(), PLAIN),
    }
    content["etc/fed/user_ca"] = (_lines([machine.trusted_ca] if machine.trusted_ca else []), PLAIN)
    content |= _user_data(machine)
    if machine.tunnel is not None:
        content |= _tunnel(machine.tunnel)
    return content


def _hosts(machine: Machine) -> str:
    lines = ["127.0.0.1 localhost", *(f"{address} {machine.hostname}" for address in machine.addresses[:1])]
    return "\n".join([*lines, ""])


def _user_data(machine: Machine) -> Files:
    """The user's part of boot, as `setup` (functions of init.sh) and the files that it names."""
    data = machine.user_data
    content: Files = {"etc/fed/keys": (_lines([*machine.keys, *data.ssh_authorized_keys]), SECRET)}
    setup = [f"ONE_ID={'1' if machine.one_id else ''}"]
    setup += [f'account {ACCOUNT} "$LOGIN_SHELL" /home/{ACCOUNT} ""']
    setup += [_call("authorize", name, "/etc/fed/keys") for name in (ACCOUNT, "root")]
    for index, user in enumerate(data.users):
        setup.append(_call("account", user.name, user.shell, user.homedir or f"/home/{user.name}", user.gecos))
        if user.ssh_authorized_keys:
            content[f"etc/fed/keys-{index}"] = (_lines(user.ssh_authorized_keys), SECRET)
            setup.append(_call("authorize", user.name, f"/etc/fed/keys-{index}"))
    for index, file in enumerate(data.write_files):
        content[f"etc/fed/file-{index}"] = (file.data, SECRET)
        how = ["append"] if file.append else []
        setup.append(_call("put", f"/etc/fed/file-{index}", file.path, file.owner, file.mode, *how))
    if program := data.program():
        content["etc/fed/user-script"] = (program.encode(), PROGRAM)
    return content | {"etc/fed/setup": (_lines(setup), PLAIN)}


def _tunnel(access: TunnelAccess) -> Files:
    host_key = " ".join(access.host_key.split()[:2])
    config = f"""\
# The reverse tunnel of this machine: `ssh -N -R NAME:0:localhost:PORT tunnel` opens PORT to the outside.
Host tunnel
  HostName {access.address}
  Port {access.port}
  User {access.user}
  HostKeyAlias {access.host}
  IdentityFile /etc/fed/tunnel_key
  IdentitiesOnly yes
  UserKnownHostsFile /etc/fed/tunnel_known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  UpdateHostKeys no
  BatchMode yes
  ConnectTimeout 10
  ExitOnForwardFailure yes
  ServerAliveInterval 15
  ServerAliveCountMax 3
"""
    return {
        "etc/fed/tunnel_key": (access.private_key.encode(), SECRET),
        "etc/fed/tunnel_known_hosts": (f"{access.host} {host_key}\n{access.address} {host_key}\n".encode(), PLAIN),
        "etc/ssh/ssh_config.d/fed.conf": (config.encode(), PLAIN),
    }


def _motd(machine: Machine) -> str:
    return "".join(_motd_lines(machine))


def _motd_lines(machine: Machine) -> Iterator[str]:
    yield f"{machine.hostname}: a machine lent by a federation of clouds. What it holds goes with it.\n"
    yield "root may log in with the same keys. Log of the user data: /var/log/cloud-init-output.log\n"
    if (tunnel := machine.tunnel) is not None:
        yield "To open a port of this machine to the outside, under a name:\n"
        yield "  ssh -N -R web:0:localhost:80 tunnel\n"
        yield "or with Dropbear's client, after\n"
        yield "  dropbearconvert openssh dropbear /etc/fed/tunnel_key ~/tunnel.key; mkdir -p ~/.ssh\n"
        yield "  cat /etc/fed/tunnel_known_hosts >> ~/.ssh/known_hosts\n"
        yield f"  dbclient -N -K 15 -i ~/tunnel.key -R web:0:localhost:80 {tunnel.user}@{tunnel.address}/{tunnel.port}\n"


def _call(*words: str) -> str:
    return shlex.join(words)


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
