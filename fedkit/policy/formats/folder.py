"""A folder of identities and credentials in any mixture of forms, as creddy's users keep them.

Nothing in it is trusted: links and special files are not followed, and size, number and sum are bounded. A file that cannot be used stops
nobody else's; it is told with its error. Only two keys with one fedid stop everything, as then it is unknown who is who.

Identities are read first, then credentials that carry their issuer, then those (x509) that need to know theirs from elsewhere.
Files with nothing but a private key are left alone.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from fedkit.errors import FedError
from fedkit.identity.keys import UnusableKey
from fedkit.policy.errors import BadCredential, MissingIssuer, TwoKeys, UnusableIdentity
from fedkit.policy.formats import LIMIT, read
from fedkit.policy.formats.identities import Identities, holds_only_private_key, read_identity
from fedkit.policy.model import Credential

FILES_LIMIT = 100_000
TOTAL_LIMIT = 512 * 1024 * 1024  # octets


@dataclass(frozen=True)
class Entry:
    """A credential and the file it came from."""

    file: Path
    credential: Credential


@dataclass(frozen=True)
class Unusable:
    """A file that could not be used, and why."""

    file: Path
    error: FedError


@dataclass(frozen=True)
class Folder:
    """What a folder holds."""

    entries: list[Entry] = field(default_factory=list)
    identities: Identities = field(default_factory=Identities)
    unusable: list[Unusable] = field(default_factory=list)

    @property
    def credentials(self) -> list[Credential]:
        """The credentials alone."""
        return [entry.credential for entry in self.entries]


def read_folder(path: Path, *, allow_sha1: bool = False) -> Folder:
    """Read every file of the folder `path`, not of folders in it; raise `OSError` if it cannot be listed, `TwoKeys`, `BadCredential`."""
    folder = Folder()
    waiting: list[tuple[Path, bytes]] = []
    for file, data in _files(path, folder):
        if not _take_identity(file, data, folder):
            waiting.append((file, data))
    without_issuer: list[tuple[Path, bytes]] = []
    for file, data in waiting:
        try:
            _take(file, data, folder, allow_sha1)
        except MissingIssuer:
            without_issuer.append((file, data))
    for file, data in without_issuer:
        try:
            _take(file, data, folder, allow_sha1)
        except MissingIssuer as error:
            folder.unusable.append(Unusable(file, error))
    return folder


def _take_identity(file: Path, data: bytes, folder: Folder) -> bool:
    """Learn the file's identity; return whether it is done with."""
    if holds_only_private_key(data):
        return True
    try:
        folder.identities.add(read_identity(data))
    except UnusableIdentity as error:
        if b"-----BEGIN " not in data:  # DER of something else, XML or compact
            return False
        folder.unusable.append(Unusable(file, error))
    except UnusableKey as error:
        folder.unusable.append(Unusable(file, error))
    return True


def _take(file: Path, data: bytes, folder: Folder, allow_sha1: bool) -> None:
    try:
        found = read(data, identities=folder.identities, allow_sha1=allow_sha1)
    except (MissingIssuer, TwoKeys):
        raise
    except FedError as error:
        folder.unusable.append(Unusable(file, error))
    else:
        folder.entries.extend(Entry(file, credential) for credential in found)


def _files(path: Path, folder: Folder) -> list[tuple[Path, bytes]]:
    with os.scandir(path) as listing:
        names = []
        for entry in listing:
            if entry.is_dir(follow_symlinks=False) or entry.name.startswith("."):
                continue
            names.append(entry.name)
            if len(names) > FILES_LIMIT:
                raise BadCredential(f"{path} holds more than {FILES_LIMIT} files.")
    contents, total = [], 0
    for name in sorted(names):
        try:
            data = read_file(path / name)
        except FedError as error:
            folder.unusable.append(Unusable(path / name, error))
            continue
        total += len(data)
        if total > TOTAL_LIMIT:
            raise BadCredential(f"{path} holds more than {TOTAL_LIMIT} octets.")
        contents.append((path / name, data))
    return contents


def read_file(file: Path) -> bytes:
    """Read a regular file of at most `LIMIT` octets, not a link to one; raise `BadCredential`."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a link, and links are not followed" if file.is_symlink() else f"cannot be read: {error.strerror}"
        raise BadCredential(f"The file {reason}.") from error
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadCredential("The file is not a regular one.")
        data = opened.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise BadCredential(f"The file has more than {LIMIT} octets.")
    return data
