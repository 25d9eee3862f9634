"""What a machine wrote on its console, as text that may be shown: a stranger's octets, so nothing in it controls a terminal."""

from __future__ import annotations

import re

from fedkit.protocol.lending import CONSOLE_LIMIT

OCTETS = 40_000  # of UTF-8 with JSON's escapes: what one answer carries (fedkit/mesh/envelope.py)
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(\x07|\x1b\\)?|[ -/]*[0-~])")  # ECMA-48
_ESCAPED = re.compile(r'[\n\t"\\]')


def printable(text: str) -> str:
    """Leave out escape sequences and control characters; lines stay lines."""
    plain = _SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in plain if char.isprintable() or char in "\n\t")


def last_of(text: str, octets: int = OCTETS) -> str:
    """The end of a text, as much of it as one answer carries, or its share of that, from the beginning of a line."""
    end = text[-CONSOLE_LIMIT:]
    while len(end.encode()) + len(_ESCAPED.findall(end)) > octets:
        end = end[len(end) // 8 + 1 :]
    return end if len(end) == len(text) else end.partition("\n")[2] or end
