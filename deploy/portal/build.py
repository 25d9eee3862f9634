"""Builds the portal's package: `python -m deploy.portal.build portal.tar.gz`.

    fedmesh-portal/portal      start it: `portal CONFIG [run|status|undo]`
    fedmesh-portal/run.py      what that runs, with `lib` before everything else that is installed
    fedmesh-portal/lib/        our sources, asyncssh and what it needs, as they are installed here

A machine needs Python 3.11 or newer of the same processor, and iproute2; no Python package. What is compiled in it is cryptography's
and cffi's, so the package is for the architecture and, through cffi, for the Python version of whoever builds it. The same
installation gives the same file, octet by octet.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import tarfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path, PurePosixPath

TOP = PurePosixPath("fedmesh-portal")
NEEDED = ("asyncssh",)
OURS = ("fedkit/__init__.py", "fedkit/errors.py", "fedkit/ssh", "fedkit/portal")
ROOT = Path(__file__).parents[2]
LAUNCHER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
exec python3 -I -B "$here/run.py" "$@"
"""
RUN = """import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lib"))
from fedkit.portal.__main__ import main

sys.exit(main())
"""
# A machine's own script (`script.py`) is the lender's business; of a distribution's papers only the licences travel.
LEFT_OUT = re.compile(r"(^|/)(__pycache__|\.\.)(/|$)|\.dist-info/(?!.*(LICEN|COPY|AUTHORS|NOTICE))|/script\.py$")
SUFFIXES = (".py", ".so", "", ".txt", ".rst", ".md", ".APACHE", ".BSD")


def requirements(name: str, found: dict[str, None]) -> None:
    """Collect a distribution and what it needs here, without extras."""
    if name in found:
        return
    found[name] = None
    for line in distribution(name).requires or []:
        wanted = re.match(r"[A-Za-z0-9_.-]+", line)
        if wanted and "extra ==" not in line and _is_installed(wanted[0]):
            requirements(wanted[0].lower().replace("_", "-"), found)


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except ModuleNotFoundError:  # a condition spared it
        return False
    return True


def contents() -> Iterator[tuple[PurePosixPath, bytes, int]]:
    """Every file: name, octets and mode."""
    yield TOP / "portal", LAUNCHER.encode(), 0o755
    yield TOP / "run.py", RUN.encode(), 0o644
    for part in OURS:
        start = ROOT / part
        for path in sorted(start.rglob("*.py")) if start.is_dir() else [start]:
            name = path.relative_to(ROOT).as_posix()
            if not LEFT_OUT.search(name):
                yield TOP / "lib" / name, path.read_bytes(), 0o644
    needed: dict[str, None] = {}
    for name in NEEDED:
        requirements(name, needed)
    for name in sorted(needed):
        for file in sorted(distribution(name).files or [], key=str):
            if not LEFT_OUT.search(file.as_posix()) and file.suffix in SUFFIXES:
                yield TOP / "lib" / file.as_posix(), Path(str(file.locate())).read_bytes(), 0o644


def build(into: Path) -> None:
    """Write the package."""
    with (
        into.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, data, mode in contents():
            entry = tarfile.TarInfo(str(name))
            entry.size, entry.mode = len(data), mode
            archive.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    build(Path(sys.argv[1]))
