"""Federation services as one line of text, on a command line or as `# SERVICE: …` in an ns2 file (fedd's own spelling):

name:exporter[,exporter]:importer1,importer2:attr1=val1;attr2=val2        trailing parts may be empty or left out
"""

from __future__ import annotations

import re

from fedkit.errors import InputError
from fedkit.topology.model import Attribute, Service

LINE_LIMIT = 4096  # characters
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")
_TESTBED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?\Z")


class BadService(InputError):
    """A line that names no service as it must."""

    code = "topology.bad_service"


def parse_service(text: str) -> Service:
    """Read one line; raise `BadService`."""
    if len(text) > LINE_LIMIT:
        raise BadService(f"A service is at most {LINE_LIMIT} characters.")
    name, exporters, importers, attributes = [*(part.strip() for part in text.split(":", 3)), "", "", ""][:4]
    if not _NAME.match(name):
        raise BadService(f"A service is written name:exporters:importers:attribute=value;…; {text[:80]!r} is not.")
    return Service(name, _testbeds(exporters), _testbeds(importers), attributes=_attributes(attributes))


def write_service(service: Service) -> str:
    """Write one line; `import_all` has no place in it."""
    attributes = ";".join(f"{attribute.name}={attribute.value}" for attribute in service.attributes)
    parts = (service.name, ",".join(service.exporters), ",".join(service.importers), attributes)
    return ":".join(parts).rstrip(":")


def _testbeds(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if not _TESTBED.match(name):
            raise BadService(f"A testbed is named name or name/subname; {name[:80]!r} is not.")
    return names


def _attributes(text: str) -> tuple[Attribute, ...]:
    found = []
    for part in text.split(";"):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        if not equals or not _NAME.match(name.strip()):
            raise BadService(f"An attribute of a service is written name=value; {part[:80]!r} is not.")
        found.append(Attribute(name.strip(), value.strip()))
    return tuple(found)
