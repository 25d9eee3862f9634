"""The files that every lent machine finds in itself: its keys, its user's keys and data, and the way to its tunnels.

Whoever makes the machine writes them there (a container's launcher into its layer, a virtual machine itself from its user
data); nothing that a user sent is executed or followed as a path outside of the machine.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files

from federation_member.middleware.contract import TunnelAccess, UnusableSpec
from federation_member.middleware.inside.host_key import HostKey
from federation_member.middleware.user_data import UserData

ACCOUNT = "fed"
SECRET, PLAIN, PROGRAM = 0o600, 0o644, 0o700
Files = dict[str, tuple[bytes, int]]  # path under / to content and mode
_FUNCTIONS = files("federation_member.middleware.inside") / "functions.sh"
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_KEY = re.compile(r"(ssh-|ecdsa-|sk-)[^\x00-\x1f\x7f]{1,4096}")
_WORD = re.compile(r"[A-Za-z0-9:_][A-Za-z0-9_.:%-]{0,252}")


@dataclass(frozen=True)
class Belongings:
    """What every machine is given. Raises `UnusableSpec` for a text that would be more than one word or line of a file."""

    hostname: str
    keys: list[str]  # OpenSSH public keys that may log in
    host_key: HostKey
    tunnel: TunnelAccess | None
    trusted_ca: str | None  # OpenSSH public key that signs user certificates

    def __post_init__(self) -> None:
        _check(_HOSTNAME, "host name", [self.hostname])
        _check(_KEY, "ssh key", [*self.keys, *([self.trusted_ca] if self.trusted_ca else [])])
        if (tunnel := self.tunnel) is not None:
            _check(_WORD, "name of the tunnel server", [tunnel.host, tunnel.address, tunnel.user])
            _check(_KEY, "key of the tunnel server", [tunnel.host_key.strip()])


def belongings(machine: Belongings) -> Files:
    """Return what does not depend on the user's own data."""
    content: Files = {
        "etc/fed/functions": (_FUNCTIONS.read_bytes(), PLAIN),
        "etc/fed/host_key": (machine.host_key.private, SECRET),
        "etc/fed/user_ca": (text_of([machine.trusted_ca] if machine.trusted_ca else []), PLAIN),
        "etc/hostname": (text_of([machine.hostname]), PLAIN),
        "etc/motd": ("".join(_motd(machine)).encode(), PLAIN),
    }
    return content | (_tunnel(machine.tunnel) if machine.tunnel is not None else {})


def user_part(keys: Iterable[str], data: UserData) -> tuple[Files, list[str]]:
    """The user's part of boot: files, and lines of shell (calls of functions.sh) that put them to use."""
    content: Files = {"etc/fed/keys": (text_of([*keys, *data.ssh_authorized_keys]), SECRET)}
    setup = [f'account {ACCOUNT} "$LOGIN_SHELL" /home/{ACCOUNT} ""']
    setup += [_call("authorize", name, "/etc/fed/keys") for name in (ACCOUNT, "root")]
    for index, user in enumerate(data.users):
        setup.append(_call("account", user.name, user.shell, user.homedir or f"/home/{user.name}", user.gecos))
        if user.ssh_authorized_keys:
            content[f"etc/fed/keys-{index}"] = (text_of(user.ssh_authorized_keys), SECRET)
            setup.append(_call("authorize", user.name, f"/etc/fed/keys-{index}"))
    for index, file in enumerate(data.write_files):
        content[f"etc/fed/file-{index}"] = (file.data, SECRET)
        how = ["append"] if file.append else []
        setup.append(_call("put", f"/etc/fed/file-{index}", file.path, file.owner, file.mode, *how))
    if program := data.program():
        content["etc/fed/user-script"] = (program.encode(), PROGRAM)
    return content, setup


def text_of(lines: Iterable[str]) -> bytes:
    """A text file of these lines."""
    return "".join(f"{line}\n" for line in lines).encode()


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
        "etc/fed/tunnel_known_hosts": (text_of([f"{access.host} {host_key}", f"{access.address} {host_key}"]), PLAIN),
        "etc/ssh/ssh_config.d/fed.conf": (config.encode(), PLAIN),
    }


def _motd(machine: Belongings) -> Iterator[str]:
    yield f"{machine.hostname}: a machine lent by a federation of clouds. What it holds goes with it.\n"
    yield "root may log in with the same keys. Log of the user data: /var/log/cloud-init-output.log\n"
    if (tunnel := machine.tunnel) is not None:
        yield "To open a port of this machine to the outside, under a name:\n"
        yield "  ssh -N -R web:0:localhost:80 tunnel\n"
        yield "or with Dropbear's client, after\n"
        yield "  dropbearconvert openssh dropbear /etc/fed/tunnel_key ~/tunnel.key; mkdir -p ~/.ssh\n"
        yield "  cat /etc/fed/tunnel_known_hosts >> ~/.ssh/known_hosts\n"
        yield f"  dbclient -N -K 15 -i ~/tunnel.key -R web:0:localhost:80 {tunnel.user}@{tunnel.address}/{tunnel.port}\n"


def _check(pattern: re.Pattern[str], what: str, texts: Iterable[str]) -> None:
    for text in texts:
        if not pattern.fullmatch(text):
            raise UnusableSpec(f"{text[:60]!r} cannot be the {what} of a machine.")


def _call(*words: str) -> str:
    return shlex.join(words)
