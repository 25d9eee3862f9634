"""Reads and writes descriptions in any form, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

from fedkit.topology import addresses, topdl
from fedkit.topology.errors import BadDescription, Problem
from fedkit.topology.model import Described, Topology
from fedkit.topology.ns2 import reader, writer
from fedkit.topology.numbering import numbered


class Form(StrEnum):
    """A language for descriptions."""

    NS2 = "ns2"
    TOPDL = "topdl"


def form_of(data: bytes) -> Form:
    """What a text looks like: XML is topdl, all else ns2."""
    return Form.TOPDL if data.lstrip()[:1] == b"<" and b"<html" not in data[:512].lower() else Form.NS2


async def read(data: bytes, file: str, form: Form | None = None, files: Mapping[str, bytes] | None = None) -> Described:
    """Read a description and number what has no address; raise `BadDescription`."""
    if (form or form_of(data)) is Form.NS2:
        return await reader.read(data, file, files)
    try:
        return Described(numbered(topdl.read(data, file)))
    except addresses.BadAddress as error:
        raise BadDescription([Problem(file, None, error.code, error.message)]) from error


WRITERS: Mapping[Form, Callable[[Topology], str]] = {
    Form.NS2: writer.write,
    Form.TOPDL: lambda topology: topdl.write(topology).decode(),
}
