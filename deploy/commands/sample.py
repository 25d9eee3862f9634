"""Writes a configuration file out of its model: every key with its description.

What must be filled in stands as `key = …` with an example; what has a default stands commented out, with the default.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

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
    "policy.file": '"/etc/fedmesh/policy.toml"',
    "tunnel.fedid": f'"{"0" * 40}"',
    "tunnel.address": '"tunnel.site-a.test"',
    "middleware.options.base": '"/var/lib/fedmesh/debian"',
    "middleware.options.state": '"/run/fedmesh/machines"',
    "middleware.options.subnet": '"10.1.0.0/16"',
    "identity_provider.name": '"cloud"',
    "identity_provider.options.url": '"https://keystone.site-a.test:5000/v3"',
    "identity_provider.options.operators.project": '"admin"',
    "identity_provider.options.operators.role": '"admin"',
    "TunnelSection.address": '"203.0.113.10"',  # a member's [tunnel] has an address in the mesh, the server's a public one
    "tunnel.listen": '"0.0.0.0:2222"',
    "tunnel.host": '"tunnel.site-a.test"',
    "tunnel.bind": '"192.0.2.10"',
    "tunnel.ports": '"20000-20099"',
    "tunnel.host_key": '"/etc/fedmesh/tunnel_host_key"',
    "tunnel.controllers": f'["{"0" * 40}"]',
}


def sample(model: type[BaseModel], tables: Mapping[str, type[BaseModel]]) -> str:
    """Return the text of the file; `tables` are the models of plug-ins' options, by the path of their table."""
    return "\n".join(_table(model, "", tables)).strip() + "\n"


def _table(model: type[BaseModel], path: str, tables: Mapping[str, type[BaseModel]]) -> Iterator[str]:
    sections = {name: tables.get(path + name) or _section(field) for name, field in model.model_fields.items()}
    for name, field in model.model_fields.items():
        if sections[name] is None:
            yield from _key(f"{model.__name__}.{name}", path + name, field)
    for name, section in sections.items():
        if section is None:
            continue
        field = model.model_fields[name]
        yield ""
        yield f"# {_first_line(section)}"
        optional = not (field.is_required() or isinstance(field.default, BaseModel) or path + name in tables)
        header = f"[[{path}{name}]]" if _is_list(field) else f"[{path}{name}]"
        for line in (header, *_table(section, f"{path}{name}.", tables)):
            yield f"# {line}" if optional and line and not line.startswith("#") else line


def _key(own: str, path: str, field: FieldInfo) -> Iterator[str]:
    name = path.rpartition(".")[2]
    if field.description:
        yield f"# {field.description}"
    if field.is_required():
        yield f"{name} = {EXAMPLES.get(own) or EXAMPLES[path]}"
    else:
        yield f"# {name} = {_toml(to_jsonable_python(field.get_default(call_default_factory=True)))}"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a table; a list that is not empty by default is shown as a value."""
    for candidate in (field.annotation, *get_args(field.annotation)):
        is_model = inspect.isclass(candidate) and issubclass(candidate, BaseModel)
        if is_model and not (_is_list(field) and field.get_default(call_default_factory=True)):
            return candidate  # type: ignore[no-any-return]
    return None


def _is_list(field: FieldInfo) -> bool:
    return getattr(field.annotation, "__origin__", None) is list


def _first_line(section: type[BaseModel]) -> str:
    return (inspect.getdoc(section) or "").partition("\n")[0]


def _toml(value: Any) -> str:
    match value:
        case None:
            return "..."
        case dict():
            return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
        case list():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)
