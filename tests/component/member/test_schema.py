"""The API does what its own description says: generated requests, good and bad, against a whole member."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp

from federation_member.service import Member

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 20


async def test_no_server_error_and_no_violation_of_the_description(
    site: tuple[Member, str, str], tmp_path: Path
) -> None:
    _member, url, token = site
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", f"{url}/api/v1/openapi.json"),
        *("-H", f"Authorization: Bearer {token}", "--no-color", "--max-examples", str(EXAMPLES)),
        *("--generation-deterministic", "--request-timeout", "20"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()


async def test_the_description_names_every_operation_once(site: tuple[Member, str, str]) -> None:
    _member, url, _token = site
    async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/openapi.json") as answer:
        description = await answer.json()
    assert description["openapi"].startswith("3.1")
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] for operation in operations)
