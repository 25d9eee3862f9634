"""`fed tunnel-server serve -c FILE`."""

from __future__ import annotations

from pathlib import Path

from fedkit import config, service
from reverse_tunnel.config import TunnelConfig
from reverse_tunnel.service import open_tunnel_server

ENVIRONMENT = "FED_TUNNEL"  # FED_TUNNEL__HTTP__LISTEN=… wins over the file


def serve(file: Path) -> int:
    """Run the reverse tunnel server until SIGTERM or SIGINT and return its exit status; raise `UnusableConfig`."""
    loaded = config.load(file, TunnelConfig, ENVIRONMENT)
    return service.run(lambda: open_tunnel_server(loaded))
