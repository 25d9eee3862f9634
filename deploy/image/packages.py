"""Which Debian packages make an image, and how they are fetched: with the machine's own apt, without installing anything.

`apt-get download` needs no root, uses the mirror and the keys that the machine is set up with, and checks the
archive's signature. Maintainer scripts never run, so what packages need only for those (debconf, perl, …) is left out:
from each package only the libraries among its dependencies are followed.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from fedkit.errors import Exit, FedError

ROOTS = (
    "base-files",
    "bash",
    "busybox-static",
    "dropbear-bin",
    "iproute2",  # what portals are set up with
    "libpython3.11-stdlib",  # the kit of experiments' nodes is written in Python
    "openssh-client",
    "openssh-server",
    "openssh-sftp-server",
    "python3-minimal",
    "python3.11-minimal",
)
TESTBED = (  # what services of experiments need on nodes besides
    *ROOTS,
    "frr",
    "samba",
    "samba-common-bin",
    "samba-libs",
    "smbnetfs",
)
NOT_NEEDED = frozenset({"libpam-modules", "libpam-runtime"})  # sshd is linked to PAM, and runs without it
KERNEL = "linux-image-cloud-amd64"  # for virtual machines: small, and all their drivers are in it
TRIES = 2
PAUSE = 3.0  # seconds between two tries
APT_TIMEOUT = 120.0  # seconds for one call


class ImageError(FedError):
    """An image cannot be built; the message says what to do."""

    code = "image.build_failed"
    exit = Exit.NOT_REACHABLE


def closure(roots: Iterable[str] = ROOTS) -> list[str]:
    """Return `name=version` of `roots` and every library that they need, sorted."""
    known: dict[str, str] = {}
    wanted = set(roots)
    while wanted:
        paragraphs = _known(wanted)
        known |= {name: fields["Version"] for name, fields in paragraphs.items()}
        wanted = {library for fields in paragraphs.values() for library in _libraries(fields)} - known.keys()
    return [f"{name}={version}" for name, version in sorted(known.items())]


def newest(names: Iterable[str]) -> list[str]:
    """Return `name=version` of these packages, sorted."""
    return sorted(f"{name}={fields['Version']}" for name, fields in _known(set(names)).items())


def kernel() -> str:
    """Return the package that holds the newest kernel; `KERNEL` only depends on it."""
    return re.split(r"[ ,|(]", _known({KERNEL})[KERNEL]["Depends"], maxsplit=1)[0]


def fetch(packages: list[str], into: Path) -> list[Path]:
    """Download `packages` (`name=version`); a mirror that hiccups gets a second try."""
    for attempt in range(1, TRIES + 1):
        done = _run(["apt-get", "download", "-q", *packages], cwd=into)
        if done.returncode == 0:
            return sorted(into.glob("*.deb"))
        if attempt < TRIES:
            time.sleep(PAUSE)
    raise ImageError(
        f"apt-get download failed {TRIES} times: {done.stderr.strip()[-500:]}\nCheck the mirror with `apt-get update`."
    )


def _known(names: set[str]) -> dict[str, dict[str, str]]:
    """Return the control fields of the newest version of each package, or say which apt does not know."""
    found = _show(sorted(names))
    if missing := names - found.keys():
        raise ImageError(f"apt knows no package {', '.join(sorted(missing))}; run `apt-get update` as root first.")
    return found


def _show(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the control fields of the newest version of each package."""
    done = _run(["apt-cache", "show", "--no-all-versions", *names])
    if done.returncode != 0 and not done.stdout:
        raise ImageError("apt has no package lists; run `apt-get update` as root first, then repeat this.")
    found: dict[str, dict[str, str]] = {}
    for paragraph in done.stdout.strip().split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", paragraph, re.MULTILINE))
        found.setdefault(fields["Package"], fields)
    return found


def _libraries(fields: dict[str, str]) -> set[str]:
    """Return the libraries that a package depends on (the first of alternatives)."""
    clauses = f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}".split(",")
    names = {re.split(r"[ |(:]", clause.strip(), maxsplit=1)[0] for clause in clauses}
    return {name for name in names if name.startswith(("lib", "zlib"))} - NOT_NEEDED


def _run(command: list[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            text=True,
            capture_output=True,
            check=False,
            timeout=APT_TIMEOUT,
            env=os.environ | {"LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise ImageError(
            f"{command[0]} is not here: images are built on a machine with apt (Debian, Ubuntu)."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(
            f"{' '.join(command[:2])} did not end within {APT_TIMEOUT:.0f} s; check the mirror."
        ) from error
