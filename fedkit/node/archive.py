"""The kit as one file: a zip that Python runs, the same octets each time that it is built from the same sources.

python3 kit.pyz apply        with the Python of any Debian since 12, and no package
"""

from __future__ import annotations

import ast
import io
import sys
import zipfile
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

PACKAGE = "fedkit/node/kit"
PARENTS = ("fedkit", "fedkit/node")
MAIN = "import sys\nfrom fedkit.node.kit.__main__ import main\nsys.exit(main())\n"
SHEBANG = b"#!/usr/bin/env python3\n"
EPOCH = (2020, 1, 1, 0, 0, 0)
_HAVE_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def archive(*, compressed: bool = True) -> bytes:
    """The octets of `kit.pyz`; not compressed, for whoever compresses them as a whole, and without what programs do not need."""
    texts = {f"{parent}/__init__.py": "" for parent in PARENTS}
    texts["__main__.py"] = MAIN
    texts |= {f"{PACKAGE}/{name}": text for name, text in _sources(files("fedkit.node.kit"))}
    if not compressed:
        texts = {name: _bare(text) for name, text in texts.items()}
    packed = io.BytesIO()
    packed.write(SHEBANG)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as into:
        for name in sorted(texts):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o100644 << 16
            into.writestr(entry, texts[name], zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED, 9)
    return packed.getvalue()


def _sources(folder: Traversable, prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            found.append((f"{prefix}{entry.name}", entry.read_text()))
    return found


def _bare(text: str) -> str:
    """A module without comments and docstrings, a quarter of it; unless it makes use of them."""
    if "__doc__" in text:
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, _HAVE_DOCSTRINGS) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(archive())
