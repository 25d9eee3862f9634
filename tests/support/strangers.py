"""Plug-ins as strangers write them: what a document shows is built as a package and installed, and found by its entry point."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

from tests.support.checkout import REPOSITORY

INSTALL = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
PATIENCE = 200  # seconds


def shown(document: str, section: str, file: str) -> str:
    """The file of that name, as a section of a document shows it."""
    text = (REPOSITORY / document).read_text()
    _, begin, after = text.partition(f"\n## {section}\n")
    assert begin, f"{document} has no section {section}"
    found = re.search(
        rf"^`{re.escape(file)}`:\n\n```\w+\n(.*?)^```$", after.split("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    assert found, f"{document} shows no {file}"
    return found[1]


@contextmanager
def installed(document: str, section: str, module: str, folder: Path) -> Iterator[None]:
    """The package of one module that a section shows, for as long as the context is open."""
    source, target = folder / "source", folder / "target"
    source.mkdir()
    for file in (f"{module}.py", "pyproject.toml"):
        (source / file).write_text(shown(document, section, file))
    subprocess.run([sys.executable, *INSTALL, "--target", target, source], check=True, timeout=PATIENCE)
    sys.path.insert(0, str(target))
    invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(target))
        sys.modules.pop(module, None)
