"""What a machine wrote on its console."""

from __future__ import annotations

import re

from pydantic import BaseModel

from federation_member.middleware.openstack.connection import Cloud
from federation_member.middleware.openstack.errors import InConflict, NotThere
from fedkit.protocol.lending import CONSOLE_LIMIT

LINES = 500  # asked of Nova
ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])")  # ECMA-48: CSI, OSC, two-octet


class Output(BaseModel):
    """Nova's answer."""

    output: str | None = None


async def console(cloud: Cloud, server_id: str) -> str:
    """The end of it, printable; empty while there is none."""
    try:
        body = {"os-getConsoleOutput": {"length": LINES}}
        answer = await cloud.post("compute", f"/servers/{server_id}/action", body, Output)
    except (NotThere, InConflict):  # it is not up yet, or its console is not to be had
        return ""
    return printable(answer.output or "")[-CONSOLE_LIMIT:]


def printable(text: str) -> str:
    """Without what would move a terminal's cursor or change its colours."""
    text = ESCAPES.sub("", text.replace("\r\n", "\n"))
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
