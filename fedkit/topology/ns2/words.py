"""How a written program names objects and quotes texts."""

from __future__ import annotations

import re

_ELEMENT = re.compile(r"([A-Za-z][A-Za-z0-9]*)-([0-9]+)\Z")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+\Z")


def variable(name: str) -> str:
    """The variable whose object gets that name: `x-3` is `x(3)`."""
    match = _ELEMENT.match(name)
    return f"{match[1]}({match[2]})" if match else name


def reference(name: str) -> str:
    """How a program means an object: `$a`, `$n(3)`, or `${a-b}` where the name has other characters."""
    found = variable(name)
    return f"${found}" if re.fullmatch(r"[A-Za-z0-9]+(\([0-9]+\))?", found) else f"${{{found}}}"


def word(text: str) -> str:
    """One word of Tcl that means exactly `text`."""
    if _PLAIN.match(text):
        return text
    return '"' + re.sub(r'([\\"$\[\]{};])', r"\\\1", text).replace("\n", "\\n") + '"'
