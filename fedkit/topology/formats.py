"""Reads and writes descriptions in any form, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum

from fedkit.topology import addresses, rspec, topdl
from fedkit.topology.errors import BadDescription, Problem
from fedkit.topology.model import Described, Topology
from fedkit.topology.ns2 import reader, writer
from fedkit.topology.numbering import numbered


class Form(StrEnum):
    """A language for descriptions."""

    NS2 = "ns2"
    TOPDL = "topdl"
    RSPEC = "rspec"


def form_of(data: bytes) -> Form:
    """What a text looks like: XML is RSpec if it says so, else topdl; all else is ns2."""
    if data.lstrip()[:1] != b"<" or b"<html" in data[:512].lower():
        return Form.NS2
    return Form.RSPEC if rspec.is_rspec(data) else Form.TOPDL


async def read(data: bytes, file: str, form: Form | None = None, files: Mapping[str, bytes] | None = None) -> Described:
    """Read a description and number what has no address; raise `BadDescription`."""
    form = form or form_of(data)
    if form is Form.NS2:
        return await reader.read(data, file, files)
    described = rspec.read(data, file) if form is Form.RSPEC else Described(topdl.read(data, file))
    try:
        return replace(described, topology=numbered(described.topology))
    except addresses.BadAddress as error:
        raise BadDescription([Problem(file, None, error.code, error.message)]) from error


WRITERS: Mapping[Form, Callable[[Topology], str]] = {
    Form.NS2: writer.write,
    Form.TOPDL: lambda topology: topdl.write(topology).decode(),
    Form.RSPEC: lambda topology: rspec.write(topology).decode(),
}
