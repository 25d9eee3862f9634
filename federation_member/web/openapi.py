"""The API's own description (OpenAPI 3.1), made from the routes; there is nothing to keep in step.

https://spec.openapis.org/oas/v3.1.0 — its schema dialect is JSON Schema 2020-12, which is what pydantic writes.
"""

from __future__ import annotations

import http
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from federation_member.accounts.errors import Unauthenticated
from federation_member.web.errors import (
    BodyTooLarge,
    BodyTooSlow,
    MalformedBody,
    NoSuchPath,
    UnsupportedMediaType,
    UnusableRequest,
)
from federation_member.web.problem import MEDIA_TYPE, Problem
from federation_member.web.routing import Route
from fedkit.errors import FedError

PREFIX = "/api/v1"
REFERENCE = "#/components/schemas/{model}"
VERSION = "1.0"

_Key = tuple[type[BaseModel], JsonSchemaMode]
_References = Mapping[Any, dict[str, Any]]  # by _Key


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI document of these routes."""
    references, definitions = models_json_schema(_models(routes), ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = _operation(route, references)
        if route.makes is not None:
            operation["responses"][str(route.status)]["links"] = _links(routes, *route.makes)
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = operation
    _require_tags(definitions.get("$defs", {}))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fedmesh Federation Member",
            "version": VERSION,
            "summary": "Order machines and networks anywhere in the federation.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _models(routes: Iterable[Route]) -> list[_Key]:
    wanted: dict[_Key, None] = {(Problem, "serialization"): None}
    for route in routes:
        if "body" in route.parts:
            wanted[(route.parts["body"], "validation")] = None
        if route.answer is not None:
            wanted[(route.answer, "serialization")] = None
    return list(wanted)


def _links(routes: Iterable[Route], parameter: str, place: str) -> dict[str, Any]:
    """Say which operations go on with what an answer holds."""
    followers = [route for route in routes if f"{{{parameter}}}" in route.path]
    return {route.name: {"operationId": route.name, "parameters": {parameter: place}} for route in followers}


def _require_tags(definitions: dict[str, Any]) -> None:
    """A tag that tells the variants of a union apart must be given, though each variant knows its own by default."""
    for definition in definitions.values():
        for part in definition.get("properties", {}).values():
            union = part.get("discriminator", {})
            for reference in union.get("mapping", {}).values():
                variant = definitions[reference.rpartition("/")[2]]
                variant["required"] = sorted({*variant.get("required", []), union["propertyName"]})


def _operation(route: Route, references: _References) -> dict[str, Any]:
    summary, _, description = route.doc.partition("\n")
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": summary,
        "parameters": [parameter for part in ("path", "query", "headers") for parameter in _parameters(route, part)],
        "responses": _responses(route, references),
    }
    if description.strip():
        operation["description"] = description.strip()
    if "body" in route.parts:
        schema = references[(route.parts["body"], "validation")]
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if route.open:
        operation["security"] = []
    return operation


def _parameters(route: Route, part: str) -> list[dict[str, Any]]:
    model = route.parts.get(part)
    if model is None:
        return []
    schema = model.model_json_schema()
    required = schema.get("required", [])
    place = "header" if part == "headers" else part
    return [
        {"name": name, "in": place, "required": name in required, "schema": _inline(value, schema.get("$defs", {}))}
        | ({"description": value["description"]} if "description" in value else {})
        for name, value in schema["properties"].items()
    ]


def _inline(value: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Put the few enumerations that parameters refer to in their place; a parameter is never null, it is left out."""
    if "$ref" in value:
        return dict(definitions[re.sub(r".*/", "", value["$ref"])])
    if "anyOf" in value:
        (only,) = [option for option in value["anyOf"] if option.get("type") != "null"]
        return _inline(only, definitions)
    return {key: content for key, content in value.items() if key not in ("title", "description")}


def _responses(route: Route, references: _References) -> dict[str, Any]:
    done: dict[str, Any] = {"description": http.HTTPStatus(route.status).phrase}
    if route.answer is not None:
        done["content"] = {route.media_type: {"schema": references[(route.answer, "serialization")]}}
    elif route.media_type != "application/json":
        done["content"] = {route.media_type: {"schema": {"type": "string"}}}
    problem = {"content": {MEDIA_TYPE: {"schema": references[(Problem, "serialization")]}}}
    responses = {str(route.status): done}
    by_status: dict[int, list[str]] = {}
    for error in errors_of(route):
        by_status.setdefault(error.http, []).append(error.code)
    for status, codes in sorted(by_status.items()):
        responses[str(status)] = {"description": ", ".join(dict.fromkeys(codes))} | problem
    responses["default"] = {"description": "Any other failure; `code` tells which."} | problem
    return responses


def errors_of(route: Route) -> list[type[FedError]]:
    """The errors a caller must expect: those the route names, and those its shape brings along."""
    errors: list[type[FedError]] = list(route.errors)
    if not route.open:
        errors.append(Unauthenticated)
    if "path" in route.parts:
        errors.append(NoSuchPath)
    if route.parts.keys() & {"query", "headers", "body"}:
        errors.append(UnusableRequest)
    if "body" in route.parts:
        errors += [MalformedBody, BodyTooLarge, BodyTooSlow, UnsupportedMediaType]
    return errors
