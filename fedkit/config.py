"""Configuration in TOML, checked against pydantic models, with environment overrides.

A file's tables are sections; every key is described in its model. `PREFIX__SECTION__KEY=value` in the environment wins
over the file. An unknown key is refused with the nearest name that exists.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fedkit.errors import InputError

C = TypeVar("C", bound="Section")


class UnusableConfig(InputError):
    """A configuration file that cannot be used; the message names file, key and what to do."""

    code = "config.invalid"


class Section(BaseModel):
    """Base of configuration sections: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def load(path: Path, model: type[C], prefix: str, environ: Mapping[str, str] = os.environ) -> C:
    """Read `path` as `model`; raise `UnusableConfig` with one line for each mistake."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise UnusableConfig(f"{path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableConfig(f"{path} is not TOML: {error}.") from error
    _override(data, prefix, environ)
    return validate(data, model, str(path))


def validate(data: Mapping[str, Any], model: type[C], source: str) -> C:
    """Read what a TOML file held as `model`; raise `UnusableConfig` that names `source`, with one line for each mistake."""
    try:
        # TOML has no paths, and the environment has only text: both are converted as pydantic does by default.
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise UnusableConfig(f"{source}:\n  " + "\n  ".join(lines)) from error


def _override(data: dict[str, Any], prefix: str, environ: Mapping[str, str]) -> None:
    start = prefix + "__"
    for name, value in environ.items():
        if name.startswith(start):
            *sections, key = name.removeprefix(start).lower().split("__")
            table = data
            for section in sections:
                table = table.setdefault(section, {})
            table[key] = value


def _explain(model: type[BaseModel], item: Any) -> str:
    location = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{location}: {item['msg']}"
    known = _names_at(model, item["loc"][:-1])
    near = difflib.get_close_matches(str(item["loc"][-1]), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return f"{location}: unknown key; {hint}"


def _names_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    for part in location:
        field = getattr(model, "model_fields", {}).get(part)
        if field is not None:
            model = field.annotation
            arguments = [a for a in getattr(model, "__args__", ()) if hasattr(a, "model_fields")]
            model = arguments[0] if arguments else model
    return list(getattr(model, "model_fields", {}))
