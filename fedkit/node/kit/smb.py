"""Files of a project: the exporter's Samba, and the mounts of importers.

    exporter   smbd with a configuration, accounts and state of its own below the kit's folder; port 445 of one address; SMB 3, encrypted
    importer   the kernel's cifs where `mount.cifs` and the kernel have it, else smbnetfs (FUSE), which serves the one share

A machine that may mount nothing can have smbnetfs's mounts at the folders that its lender lists in /etc/fed/mounts: its `fusermount` asks
the lender for them.

Whatever the machine's own Samba is set up for is not touched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedkit.node.kit.conf import Share
from fedkit.node.kit.doing import Change
from fedkit.node.kit.errors import CommandFailed, InUse, KitError, NotYet
from fedkit.node.kit.files import Folder, Text
from fedkit.node.kit.processes import Daemon, digest
from fedkit.node.kit.system import System

SERVER = """\
[global]
server role = standalone server
workgroup = FEDERATION
disable netbios = yes
smb ports = 445
interfaces = {addresses}
bind interfaces only = yes
private dir = {folder}
lock directory = {folder}
state directory = {folder}
cache directory = {folder}
pid directory = {folder}
ncalrpc dir = {folder}/ncalrpc
passdb backend = tdbsam:{folder}/passdb.tdb
log file = {folder}/log.smbd
max log size = 1000
map to guest = never
load printers = no
printing = bsd
printcap name = /dev/null
disable spoolss = yes
server min protocol = SMB3
smb encrypt = required
"""
SHARE = """
[{name}]
path = {path}
read only = no
valid users = {user}
force user = {user}
create mask = 0664
directory mask = 0775
"""
CLIENT = """\
[global]
client min protocol = SMB3
client smb encrypt = desired
"""
MOUNTS = Path("/proc/self/mountinfo")
LENT = "/etc/fed/mounts"
DEVICE = "/dev/fuse"
PATIENCE = 10.0  # seconds for a look at a share


@dataclass(frozen=True)
class Owner:
    """Whose the files are."""

    name: str
    uid: int
    gid: int


def exported(system: System, shares: Sequence[Share], owners: dict[str, Owner]) -> Iterator[Change]:
    """What an exporter changes."""
    folder = f"{system.state}/samba"
    conf = f"{folder}/smb.conf"
    addresses = " ".join(dict.fromkeys(f"{share.server}/32" for share in shares))
    text = SERVER.format(folder=folder, addresses=addresses)
    text += "".join(SHARE.format(name=share.name, path=share.path, user=share.user) for share in shares)
    yield Folder(folder, 0o755)
    yield Text(conf, text, 0o600)
    for share in shares:
        owner = owners[share.user]
        yield from folders(system, share.path, 0o775, owner)
        yield Password(conf, share.user, share.password)
    yield Daemon(
        "smbd",
        ["smbd", "--foreground", "--no-process-group", f"--configfile={conf}", f"--log-basename={folder}"],
        {"FEDERATION_CONF": digest(text)},
    )


def mounted(system: System, share: Share, owner: Owner) -> Iterator[Change]:
    """What an importer changes."""
    place = f"{system.state}/mount-{share.name}"
    yield from folders(system, share.path, 0o755, Owner("root", 0, 0))
    yield Folder(place, 0o700)
    yield Folder(f"{place}/.smb", 0o700)
    yield Text(f"{place}/credentials", f"username={share.user}\npassword={share.password}\n", 0o600)
    yield Text(f"{place}/.smb/smb.conf", CLIENT, 0o600)
    said = f'auth "{share.server}" "{share.user}" "{share.password}"\nsmb_query_browsers "false"\n'
    yield Text(f"{place}/.smb/smbnetfs.conf", said, 0o600)
    yield Mount(share.path, place, share.server, share.name, owner.uid, owner.gid)


def folders(system: System, path: str, mode: int, owner: Owner) -> Iterator[Folder]:
    """A folder and those that it is in."""
    parents = [str(parent) for parent in reversed(Path(path).parents) if str(parent) != "/"]
    yield from (Folder(parent) for parent in parents)
    yield Folder(path, mode, owner.uid, owner.gid)


@dataclass(frozen=True)
class Password:
    """Somebody's password for Samba alone; it goes with the folder that holds it."""

    conf: str
    user: str
    password: str

    @property
    def key(self) -> str:
        """Whose."""
        return f"password of {self.user}"

    def before(self, system: System) -> Any:
        """There was none."""
        return None

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Set it."""
        if not made:
            twice = f"{self.password}\n{self.password}\n"
            system.run("smbpasswd", "-c", str(system.path(self.conf)), "-s", "-a", self.user, text=twice)

    def undo(self, system: System, before: Any) -> None:
        """Nothing is left of it."""


@dataclass(frozen=True)
class Mount:
    """A share, mounted; `place` holds what that needs."""

    point: str
    place: str
    server: str
    share: str
    uid: int
    gid: int

    @property
    def key(self) -> str:
        """Where."""
        return f"mount {self.point}"

    def before(self, system: System) -> Any:
        """Nothing but the life that it is of."""
        return {"life": system.life}

    def make(self, system: System, before: Any, *, made: bool) -> None:
        """Mount it; raises `NotYet` while the server does not let us in."""
        point = system.path(self.point)
        if is_mounted(point):
            if _answers(point):
                return
            if made or not system.running(self._mark):
                self.undo(system, before)
        if self._is_lent(system):
            self._mount_fuse(system)
        elif system.find("mount.cifs") and _kernel_has_cifs(system):
            self._mount_cifs(system)
        elif system.path(DEVICE).exists():
            self._mount_fuse(system)
        else:
            raise InUse(f"this machine may mount nothing: there is no {DEVICE}, and {LENT} does not name {self.point}")

    def undo(self, system: System, before: Any) -> None:
        """Unmount it, even if somebody stands in it; and end what served it."""
        point = system.path(self.point)
        unmount = ["fusermount", "-u", "-z", "--"] if self._is_lent(system) else ["umount", "-n", "-l"]
        while is_mounted(point):
            system.run(*unmount, str(point))
        system.end(self._mark)

    @property
    def _mark(self) -> str:
        return f"smbnetfs {self.point}"

    def _is_lent(self, system: System) -> bool:
        """Whether the lender mounts there for us."""
        try:
            return self.point in system.path(LENT).read_text().splitlines()
        except FileNotFoundError:
            return False

    def _mount_cifs(self, system: System) -> None:
        credentials = system.path(self.place) / "credentials"
        said = f"credentials={credentials},uid={self.uid},gid={self.gid},file_mode=0664,dir_mode=0775,vers=3.0,seal,nosuid,nodev"
        try:
            system.run("mount", "-t", "cifs", f"//{self.server}/{self.share}", str(system.path(self.point)), "-o", said)
        except CommandFailed as error:
            raise NotYet(str(error)) from None

    def _mount_fuse(self, system: System) -> None:
        if system.find("smbnetfs") is None:
            raise InUse("neither mount.cifs nor smbnetfs is here; install cifs-utils or smbnetfs")
        point = system.path(self.point)
        if not system.running(self._mark):
            home = system.path(self.place)
            system.start(self._mark, ["smbnetfs", "-f", "-o", self._options(system), str(point)], {"HOME": str(home)})
        if not is_mounted(point) or not _answers(point):
            raise NotYet(f"//{self.server}/{self.share} does not answer")

    def _options(self, system: System) -> str:
        """libfuse's; smbnetfs alone would show all servers, of which one share is wanted."""
        owner = f"allow_other,default_permissions,uid={self.uid},gid={self.gid},umask=0002"
        said = f"nonempty,{owner},modules=subdir,subdir=/{self.server}/{self.share}"
        return f"auto_unmount,{said}" if self._is_lent(system) else said  # by which libfuse asks `fusermount` at once


def is_mounted(path: Path) -> bool:
    """Whether something is mounted just there."""
    lines = MOUNTS.read_text().splitlines()
    return str(path) in (line.split()[4].encode().decode("unicode_escape") for line in lines)


def _answers(path: Path) -> bool:
    """Whether a folder can be listed; asked by another process, because one that hangs cannot be ended otherwise.

    Nobody waits for its end then: a server that has read the question and never answers can keep it even when it is killed.
    """
    look = subprocess.Popen(["ls", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return look.wait(PATIENCE) == 0
    except subprocess.TimeoutExpired:
        look.kill()
        return False


def _kernel_has_cifs(system: System) -> bool:
    if "\tcifs\n" not in Path("/proc/filesystems").read_text():
        try:
            system.run("modprobe", "cifs")
        except KitError:
            return False
    return "\tcifs\n" in Path("/proc/filesystems").read_text() and os.path.exists("/proc/fs/cifs")
