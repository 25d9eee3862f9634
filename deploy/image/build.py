"""Builds the root file systems that the embedded middleware lends: `python -m deploy.image.build [--testbed] [DIR]`.

A few Debian packages are unpacked side by side (no debootstrap, no root, no maintainer script), busybox gives the small
commands, and the few files that make it a system are written; the portal's package (deploy/portal) is unpacked on top. A machine
never writes to the base: each has a copy-on-write layer over it. The result is put in its place by one rename, and is built only
once: a stamp names what it was made of. Where only the portal's sources are others, all else is copied from what is there. Remove
the folder to build it from newer packages.

What was there before is kept until the next time, because machines that run still stand on it.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.image.packages import ROOTS, TESTBED, ImageError, closure, fetch
from deploy.portal import build as portal

PLACE = Path(__file__).parents[2] / ".lab"
DEFAULT = PLACE / "base"
STAMP = ".fedmesh-base"  # lines: the recipe, that of the portal's package, and each Debian package
PROGRAMS = "usr/local/lib"  # where the portal's package is unpacked
MERGED = ("bin", "sbin", "lib", "lib64")  # links into /usr, as in every Debian since 12
DIRECTORIES = (
    "dev",
    "proc",
    "sys",
    "run",
    "root",
    "home",
    "mnt",
    "opt",
    "srv",
    "etc/ssh/ssh_config.d",
    "var/log",
    "var/www",
)
DROPPED = (
    *(
        f"usr/share/{name}"
        for name in ("doc", "doc-base", "info", "lintian", "locale", "man", "menu", "bug", "bash-completion")
    ),
    *("boot", "lib/systemd", "usr/lib/systemd", "etc/init.d", "etc/systemd", "etc/pam.d", "etc/ssh/moduli"),
)
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/shells": "/bin/sh\n/bin/bash\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    "etc/profile": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
}
FRR_FILES = {  # its daemons leave root's account
    "etc/passwd": FILES["etc/passwd"] + "frr:x:101:101::/nonexistent:/usr/sbin/nologin\n",
    "etc/group": FILES["etc/group"] + "frr:x:101:\nfrrvty:x:102:frr\n",
}
EPOCH = 1_700_000_000  # time stamp of all that is written here, so that two builds of the same packages are the same
# By trust, because files of an image have no times; by a process of its own, because what comes of it depends on its hashes.
COMPILE = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Contents:
    """What an image is made of."""

    roots: tuple[str, ...]
    files: Mapping[str, str]

    @property
    def recipe(self) -> str:
        """What decides the content besides the Debian packages' versions and the portal's package."""
        said = (self.roots, MERGED, DIRECTORIES, DROPPED, self.files, EPOCH, sys.version, COMPILE)
        return hashlib.sha256(repr(said).encode()).hexdigest()


BASE = Contents(ROOTS, FILES)
FOR_EXPERIMENTS = Contents(TESTBED, FILES | FRR_FILES)


def build(
    target: Path = DEFAULT, say: Say = lambda line: print(line, file=sys.stderr), contents: Contents = BASE
) -> Path:
    """Make sure that `target` holds the image, and return it; safe to call from several processes at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recipes = [contents.recipe, _portal_recipe()]
        stamp = _stamp(target)
        if stamp[:2] == recipes:
            return target
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.new-", dir=target.parent) as scratch:
            root = Path(scratch) / "root"
            if stamp[:1] == recipes[:1]:
                packages = stamp[2:]
                shutil.copytree(target, root, symlinks=True)
                shutil.rmtree(root / PROGRAMS / portal.TOP)
            else:
                say(f"{target.name}: asking apt which packages are needed")
                packages = closure(contents.roots)
                say(f"{target.name}: fetching {len(packages)} packages")
                (debs := Path(scratch) / "debs").mkdir()
                _unpack(fetch(packages, debs), root)
                _finish(root, contents)
            _add_portal(root)
            (root / STAMP).write_text("\n".join([*recipes, *packages, ""]))
            _normalise_all(root)
            _replace(target, root)
    say(f"{target.name}: {_size(target) / 2**20:.0f} MiB in {target}")
    return target


def _stamp(target: Path) -> list[str]:
    """Of what is there; nothing if there is none."""
    try:
        return (target / STAMP).read_text().splitlines()
    except FileNotFoundError:
        return []


def _replace(target: Path, root: Path) -> None:
    before = target.with_name(f"{target.name}.before")
    if before.exists():
        shutil.rmtree(before)
    if target.exists():
        target.rename(before)
    root.rename(target)


def _unpack(debs: list[Path], root: Path) -> None:
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE) as archive:
            tar = ["tar", "-x", "-C", str(root), "--keep-directory-symlink", "--no-same-permissions", "--no-same-owner"]
            unpacked = subprocess.run(tar, stdin=archive.stdout, capture_output=True, text=True, check=False)
        if unpacked.returncode or archive.returncode:
            raise ImageError(f"{deb.name} cannot be unpacked: {unpacked.stderr.strip()[-300:]}")


def _finish(root: Path, contents: Contents) -> None:
    for name in DROPPED:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for gconv in root.glob("usr/lib/*/gconv"):
        shutil.rmtree(gconv)
    for name in DIRECTORIES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in contents.files.items():
        (root / name).write_text(text)
    (root / "tmp").mkdir(exist_ok=True)
    _link_busybox(root)
    _compile(root, *root.glob("usr/lib/python3.*"))


def _portal_recipe() -> str:
    """What decides what `_add_portal` adds; it is compiled, which each version of Python does in its own way."""
    whole = hashlib.sha256(repr((sys.version, COMPILE)).encode())
    for name, data, mode in portal.contents():
        whole.update(f"{name} {len(data)} {mode}\n".encode() + data)
    return whole.hexdigest()


def _add_portal(root: Path) -> None:
    """Unpack the portal's package."""
    for name, data, mode in portal.contents():
        path = root / PROGRAMS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)
    _compile(root, root / PROGRAMS / portal.TOP)


def _compile(root: Path, *folders: Path) -> None:
    """Compile what is Python's, as no machine could keep what it compiled itself: they start twice as fast."""
    command = [sys.executable, *COMPILE, "-s", str(root), "-p", "/", *map(str, folders)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": "0"})


def _link_busybox(root: Path) -> None:
    """Give every command that only busybox has its name."""
    busybox = root / "usr/bin/busybox"
    listed = subprocess.run([busybox, "--list-full"], capture_output=True, text=True, check=True).stdout.split()
    for command in listed:
        directory = root / "usr" / ("sbin" if "sbin" in command else "bin")
        if not (directory / Path(command).name).exists():
            (directory / Path(command).name).symlink_to("/usr/bin/busybox")


def _normalise_all(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        _normalise(path)
    (root / "tmp").chmod(0o1777)
    (root / "etc/shadow").chmod(0o600)


def _normalise(path: Path) -> None:
    """No set-uid file, nothing unreadable, one time stamp."""
    if path.is_symlink():
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod((mode & 0o755) | (0o755 if path.is_dir() else 0o444))
    os.utime(path, (EPOCH, EPOCH))


def _size(root: Path) -> int:
    return sum(path.lstat().st_size for path in root.rglob("*") if not path.is_symlink())


def main(arguments: list[str]) -> int:
    """Build into the folder named on the command line, or the default one."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.image.build", description="Build an image for `containers`."
    )
    parser.add_argument("--testbed", action="store_true", help="with all that services of experiments need on nodes")
    parser.add_argument("target", metavar="DIR", nargs="?", type=Path)
    asked = parser.parse_args(arguments)
    place, contents = (PLACE / "testbed", FOR_EXPERIMENTS) if asked.testbed else (DEFAULT, BASE)
    try:
        print(build((asked.target or place).absolute(), contents=contents))
    except ImageError as error:
        print(error.message, file=sys.stderr)
        return int(error.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
