"""Accounts of a node, written before it starts: what the first program of a machine does there (../../inside/functions.sh)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from federation_member.middleware.inside.files import ACCOUNT, PLAIN, SECRET, Files, text_of

ID = 1000  # of the usual account, which the launcher's images leave free
SHELLS = ("bin/bash", "bin/sh")


def files(image: Path, keys: Sequence[str]) -> Files:
    """The usual account beside those of the image, and the keys that may enter as it and as root."""
    shell = "/" + next((name for name in SHELLS if (image / name).exists()), SHELLS[-1])
    lines = {
        "etc/passwd": f"{ACCOUNT}:x:{ID}:{ID}::/home/{ACCOUNT}:{shell}",
        "etc/group": f"{ACCOUNT}:x:{ID}:",
        "etc/shadow": f"{ACCOUNT}:*:19000:0:99999:7:::",
    }
    made: Files = {}
    for path, line in lines.items():
        given = (image / path).read_text(errors="surrogateescape") if (image / path).exists() else ""
        others = [other for other in given.splitlines() if not other.startswith(f"{ACCOUNT}:")]
        text = "".join(f"{other}\n" for other in [*others, line])
        made[path] = (text.encode(errors="surrogateescape"), SECRET if path == "etc/shadow" else PLAIN)
    return made | {"etc/fed/keys": (text_of(keys), PLAIN)}
