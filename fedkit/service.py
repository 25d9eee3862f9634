"""The life of a component's process: start, say that it is ready, run until told to stop, stop in order.

A component is one async context manager that starts everything on entry and stops it on exit:

    run(lambda: MemberService(config))     SIGTERM, SIGINT ──► exit the context ──► status 0

systemd is told by `sd_notify(3)` (`Type=notify`): READY=1 after entry, STOPPING=1 before exit, WATCHDOG=1 in between where
the unit asks for it. Stopping never deletes anything: whatever was lent stays lent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from fedkit.errors import FedError

log = structlog.get_logger()

Readiness = Callable[[], list[str]]
"""Returns what is missing, one sentence for each; an empty list means ready."""


def run(open_service: Callable[[], AbstractAsyncContextManager[object]]) -> int:
    """Run a component until SIGTERM or SIGINT and return its exit status."""
    configure_logging()
    status = 0
    try:
        asyncio.run(_serve(open_service()))
    except* FedError as group:  # alone, or out of a service's TaskGroup
        for error in _leaves(group):
            log.error("stopped", code=error.code, reason=error.message)
            print(f"{error.code}: {error.message}", file=sys.stderr)
            status = max(status, int(error.exit))
    return status


def _leaves(group: BaseExceptionGroup[FedError]) -> Iterator[FedError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def _serve(service: AbstractAsyncContextManager[object]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with service:
        notify("READY=1")
        log.info("ready")
        watchdog = asyncio.create_task(_pat_watchdog())
        await stop.wait()
        watchdog.cancel()
        notify("STOPPING=1")
    log.info("stopped")


async def _pat_watchdog() -> None:
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000  # twice as often as asked, in seconds
    while interval:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def notify(state: str) -> None:
    """Tell the service manager our state; do nothing where there is none (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.connect(address)
            channel.send(state.encode())
    except OSError as error:  # a service manager that does not listen must not end the service
        log.warning("service_manager_not_told", state=state, reason=str(error))


def configure_logging() -> None:
    """One line for each event on stderr: for people on a terminal, JSON otherwise."""
    level = logging.getLevelNamesMapping().get(os.environ.get("FED_LOG", "INFO").upper(), logging.INFO)
    pretty = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr)


def add_health_routes(app: web.Application, readiness: Readiness, registry: CollectorRegistry) -> None:
    """Serve `/healthz` (the process lives), `/readyz` (503 with what is missing) and `/metrics` (Prometheus)."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"ok": True})

    async def readyz(_request: web.Request) -> web.Response:
        missing = readiness()
        return web.json_response({"ready": not missing, "missing": missing}, status=503 if missing else 200)

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics)


def parse_listen(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` (IPv6 hosts in brackets)."""
    host, _, port = text.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - an operator who leaves the host out means all


class HttpServer:
    """An aiohttp application that listens while its context is open; port 0 takes a free one, told in `port`."""

    def __init__(self, app: web.Application, listen: str) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        self._host, self._port = parse_listen(listen)

    @property
    def port(self) -> int:
        """The port that is really listened on."""
        return int(self._runner.addresses[0][1])

    async def __aenter__(self) -> HttpServer:
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()
