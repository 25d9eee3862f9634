"""The checkout as an unprivileged person sees it: only root may be let in where it lies, below /root, say.

So it is shown in a folder that is open to anybody, in a mount namespace of the command that needs it, which leaves nothing.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Checkout:
    """Where the checkout is seen, and the start of a command line under which it is seen there."""

    root: Path
    prefix: tuple[str, ...] = ()

    @property
    def python(self) -> str:
        """This Python, by its name there."""
        return str(self.root / Path(sys.executable).relative_to(REPOSITORY))


@pytest.fixture
def open_checkout() -> Iterator[Checkout]:
    """The checkout for anybody; commands under its `prefix` start in it."""
    if os.geteuid() != 0:
        yield Checkout(REPOSITORY)
        return
    with tempfile.TemporaryDirectory(prefix="fedmesh-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "checkout"
        root.mkdir()
        show = f"mount --bind {shlex.quote(str(REPOSITORY))} {root} && cd {root}"
        yield Checkout(root, ("unshare", "--mount", "sh", "-c", f'{show} && exec "$@"', "sh"))
