"""A component's process: ready is told, SIGTERM stops in order, an expected error is one line and its exit status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from fedkit.service import HttpServer, add_health_routes


def start(body: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    code = "import sys\nfrom contextlib import asynccontextmanager\nfrom fedkit.service import run\n"
    code += "from fedkit.config import UnusableConfig\n@asynccontextmanager\nasync def service():\n"
    code += textwrap.indent(textwrap.dedent(body), "    ") + "\nsys.exit(run(service))\n"
    return subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **environment}, text=True, stdout=subprocess.PIPE, stderr=-1
    )


def test_ready_and_stopping_are_told_and_sigterm_exits_the_context(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(30)
        process = start("yield\nprint('left in order')", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert channel.recv(64) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert channel.recv(64) == b"STOPPING=1"
    assert process.returncode == 0
    assert "left in order" in output


def test_an_expected_error_is_one_line_with_its_code_and_exit_status() -> None:
    process = start("raise UnusableConfig('name is missing.')\nyield", {})
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "config.invalid: name is missing." in errors
    assert "Traceback" not in errors


def test_a_service_manager_that_went_away_does_not_spoil_the_stop(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(30)
        process = start("yield\nprint('left in order')", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert channel.recv(64) == b"READY=1"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "left in order" in output


def test_an_expected_error_inside_a_task_group_is_told_alike() -> None:
    process = start("raise ExceptionGroup('tasks', [UnusableConfig('name is missing.')])\nyield", {})
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "config.invalid: name is missing." in errors
    assert "Traceback" not in errors


async def test_readiness_says_what_is_missing() -> None:
    app = web.Application()
    missing = ["The link to the XMPP server is down."]
    add_health_routes(app, lambda: missing, CollectorRegistry())
    async with HttpServer(app, "127.0.0.1:0") as server, aiohttp.ClientSession() as client:
        base = f"http://127.0.0.1:{server.port}"
        async with client.get(base + "/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["missing"] == missing
        missing.clear()
        async with client.get(base + "/readyz") as answer:
            assert answer.status == 200
        async with client.get(base + "/metrics") as answer:
            assert answer.status == 200
