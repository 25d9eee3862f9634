"""Writes a configuration file out of its model: every key with its description.

What must be filled in stands as `key = …` with an example; what has a default stands commented out, with the default.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

# What a person would write; a sample shows values, not types.
EXAMPLES: dict[str, str] = {
    "name": '"site-a.test"',
    "identity.key": '"/etc/fedmesh/key.pem"',
    "xmpp.address": '"fm.site-a.test"',
    "xmpp.host": '"192.0.2.10"',
    "xmpp.secret_file": '"/etc/fedmesh/xmpp.secret"',
    "store.url": '"sqlite:////var/lib/fedmesh/store.db"',
    "rendezvous.fedid": f'"{"0" * 40}"',
    "rendezvous.address": '"rendezvous.site-a.test"',
    "rendezvous.allow": '["*"]',
    "tunnel.fedid": f'"{"0" * 40}"',
    "tunnel.address": '"tunnel.site-a.test"',
    "TunnelSection.address": '"203.0.113.10"',  # a member's [tunnel] has an address in the mesh, the server's a public one
    "tunnel.listen": '"0.0.0.0:2222"',
    "tunnel.host": '"tunnel.site-a.test"',
    "tunnel.bind": '"192.0.2.10"',
    "tunnel.ports": '"20000-20099"',
    "tunnel.host_key": '"/etc/fedmesh/tunnel_host_key"',
    "tunnel.controllers": f'["{"0" * 40}"]',
}


def sample(model: type[BaseModel]) -> str:
    """Return the text of the file."""
    return "\n".join(_table(model, "")).strip() + "\n"


def _table(model: type[BaseModel], path: str) -> Iterator[str]:
    inner = {name: field for name, field in model.model_fields.items() if _section(field) is not None}
    for name, field in model.model_fields.items():
        if name not in inner:
            yield from _key(f"{model.__name__}.{name}", path + name, field)
    for name, field in inner.items():
        section = _section(field)
        assert section is not None
        yield ""
        yield f"# {_first_line(section)}"
        mark = "" if field.is_required() or _worth_showing(field) else "# "
        brackets = f"[[{path}{name}]]" if _is_list(field) else f"[{path}{name}]"
        yield mark + brackets
        yield from (
            mark + line if line and mark and not line.startswith("#") else line
            for line in _table(section, f"{path}{name}.")
        )


def _key(own: str, path: str, field: FieldInfo) -> Iterator[str]:
    name = path.rpartition(".")[2]
    if field.description:
        yield f"# {field.description}"
    if field.is_required():
        yield f"{name} = {EXAMPLES.get(own) or EXAMPLES[path]}"
    else:
        default = field.get_default(call_default_factory=True)
        yield f"# {name} = {_toml(default)}"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    for candidate in (field.annotation, *get_args(field.annotation)):
        if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_list(field: FieldInfo) -> bool:
    return getattr(field.annotation, "__origin__", None) is list


def _worth_showing(field: FieldInfo) -> bool:
    """A section with a default of its own needs no keys; its header may stand."""
    return isinstance(field.default, BaseModel)


def _first_line(section: type[BaseModel]) -> str:
    return (inspect.getdoc(section) or "").partition("\n")[0]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{}" if not value else "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return "..." if value is None else json.dumps(value)
