"""Errors as `application/problem+json` (RFC 9457).

`code` is the stable code that the mesh, the logs and the command line show too; `detail` is the sentence for the
person; `details` is for programs. The `type` is `about:blank`, so `title` is the status phrase (RFC 9457 §4.2.1).
"""

from __future__ import annotations

import http
import json
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from fedkit.errors import FedError

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request was not done."""

    model_config = ConfigDict(extra="forbid")

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    code: str = Field(
        description="stable, such as order.unknown; the same in the mesh, in logs and on the command line"
    )
    detail: str = Field(description="for the person: what is wrong and what to do")
    exit: int = Field(description="exit status with which `fed` shows it")
    details: dict[str, Any] = Field(default_factory=dict, description="for programs")


def problem_text(error: FedError) -> str:
    """Return this error as JSON on one line."""
    problem = Problem(
        title=http.HTTPStatus(error.http).phrase,
        status=error.http,
        code=error.code,
        detail=error.message,
        exit=error.exit,
        details=error.details,
    )
    return json.dumps(problem.model_dump(mode="json"), default=str)


def problem_response(error: FedError) -> web.Response:
    """Return the answer that shows this error."""
    headers = {"Content-Type": MEDIA_TYPE}
    if error.http == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="fedmesh"'  # RFC 6750 §3
    if "retry_after" in error.details:
        headers["Retry-After"] = str(error.details["retry_after"])
    return web.Response(status=error.http, body=problem_text(error).encode(), headers=headers)
